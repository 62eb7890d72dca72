package aggregate

import (
	"slices"
	"strconv"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxTerms bounds what a sentence quotes of a profile, whose texts may be that long.
const maxTerms = 512

// state adds to a finding what the client answers for a cause, in the terms of its documents, and what to
// change. More causes are named beside the first one.
func (c *client) state(finding *pb.Finding, cause pb.OriginCause, doubt string, more ...pb.OriginCause) {
	c.tell(finding, c.predict(cause, doubt), more...)
}

// tell adds a prediction to a finding, in words too.
func (c *client) tell(finding *pb.Finding, p *pb.Prediction, more ...pb.OriginCause) {
	cause := p.GetCause()
	finding.Prediction = p
	terms, fixes := []string{p.GetText()}, []string{c.row(cause).GetFix()}
	for _, other := range more {
		if row := c.row(other); row != nil && !slices.Contains(terms, row.GetText()) {
			terms, fixes = append(terms, row.GetText()), append(fixes, row.GetFix())
		}
	}
	text := " → " + c.answers(p)
	if terms = nonEmpty(terms); len(terms) > 0 {
		text += ": “" + strings.Join(terms, "”, and “") + "”"
	}
	finding.Summary = strings.TrimSuffix(finding.GetSummary(), ".") + text + "."
	finding.Hint = strings.Join(nonEmpty(append([]string{finding.GetHint()}, fixes...)), " ")
}

// nonEmpty are the texts that say something, bounded for a sentence.
func nonEmpty(texts []string) []string {
	var all []string
	for _, text := range texts {
		if text != "" {
			all = append(all, shownUpTo(maxTerms, text))
		}
	}
	return all
}

// wonder adds to a warning what the client may answer, where its documents do not say whether it does.
func (c *client) wonder(finding *pb.Finding, cause pb.OriginCause, doubt string) {
	finding.Prediction = c.predict(cause, doubt)
	finding.Summary = strings.TrimSuffix(finding.GetSummary(), ".") +
		" → whether " + c.label() + " minds that is not documented (unverified)."
}

// answers says what viewers get: "CloudFront answers 502", or "… likely answers 502 (unverified)".
func (c *client) answers(p *pb.Prediction) string {
	switch unverified := p.GetSource().GetUnverified(); {
	case p.GetStatus() == "" && p.GetText() == "":
		return c.label() + " may not be able to use it; its profile does not say what it answers"
	case p.GetCause() == pb.OriginCause_ORIGIN_CAUSE_UPSTREAM, p.GetCause() == pb.OriginCause_ORIGIN_CAUSE_EDGE:
		return c.label() + " passes the origin’s own response on"
	case p.GetStatus() == "":
		return c.label() + " passes it on"
	case unverified:
		return c.label() + " likely answers " + p.GetStatus() + " (unverified)"
	default:
		return c.label() + " answers " + p.GetStatus()
	}
}

// misfitSummary says what the client does not come to.
func (c *client) misfitSummary(cause pb.OriginCause) string {
	if cause == pb.OriginCause_ORIGIN_CAUSE_ADDRESS_ORIGIN {
		return "the origin is named by the address " + shown(c.domain) + ", and " + c.label() + " wants a name."
	}
	ports := c.GetHttpsPorts()
	if c.plain {
		ports = c.GetHttpPorts()
	}
	return "the origin is at port " + strconv.Itoa(int(c.port)) + ", and " + c.label() + " connects to " + shownUpTo(maxTerms, strings.Join(ports, ", ")) + " alone."
}

// refusalSummary says what fails, from where, and what each side offers.
func (f *facts) refusalSummary(r *pb.Finding, spots []*spot) string {
	fails := failsOf(spots)
	where := join(r.GetRegions())
	if n := len(r.GetRegions()); n > 1 {
		where = "from all " + strconv.Itoa(n) + " judged regions (" + where + ")"
	}
	text := where + ": "
	switch r.GetCode() {
	case pb.FindingCode_FINDING_CODE_PROTOCOL_MISMATCH, pb.FindingCode_FINDING_CODE_CIPHER_MISMATCH:
		text += join(r.GetAddresses()) + " " + f.client.offers(r.GetCode(), fails[0])
	case pb.FindingCode_FINDING_CODE_CERTIFICATE_PROBLEM:
		text += join(r.GetAddresses()) + " cannot use its certificate with what " + f.client.label() + " offers" + f.client.keyWords(fails[0])
	default:
		text += f.client.meets(r, fails)
	}
	return text + "."
}

// meets says what the agents ran into, with the value that the client minds where they do not.
func (c *client) meets(r *pb.Finding, fails []*sight) string {
	where := join(r.GetAddresses())
	switch size := fails[0].at().GetEvidence().GetHttp().GetHeaderSize(); {
	case r.GetFailure() == pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED:
		return where + " " + verb(r.GetAddresses(), "asks", "ask") + " clients for a certificate" + demanded(fails[0])
	case r.GetFailure() == pb.Failure_FAILURE_HTTP_TOO_LARGE && size > 0:
		return where + " " + verb(r.GetAddresses(), "answers", "answer") + " with a header of " + plural(int(size), "byte") +
			", and " + c.label() + " takes " + plural(int(c.GetMaxHeaderBytes()), "byte")
	case silentEverywhere(r):
		return failing(r, fails) + passed(fails) + "; an origin that admits only " + c.label() + "’s own addresses looks like this too, and is well; if this one does not"
	}
	return failing(r, fails) + passed(fails)
}

// silentEverywhere says whether a finding about all that was judged rests on silence alone.
func silentEverywhere(r *pb.Finding) bool { return r.GetBlock() == pb.BlockKind_BLOCK_KIND_DROP }

// demanded says whether a server insists on a certificate or merely asks for one.
func demanded(v *sight) string {
	if v.agent.steps[v.own].GetFailure() == pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED {
		return " and serves nobody without one"
	}
	return ", though it serves those without one too"
}

// keyWords are the key of the certificate that the agent's own handshake saw.
func (c *client) keyWords(v *sight) string {
	leaf := leafIn(v.agent.steps[v.own].GetEvidence().GetTls().GetChain())
	return inBrackets("key " + shown(leaf.GetKey()))
}

// offers says what the server accepts and what the client offers.
func (c *client) offers(code pb.FindingCode, v *sight) string {
	t := c.talk(v)
	has := "accepts "
	if !t.whole {
		has = "agrees with the agents on "
	}
	answer := inBrackets(strings.Join(slices.DeleteFunc([]string{ShortFailure(v.failure), inWords([]*sight{v})}, func(s string) bool { return s == "" }), ", "))
	if code == pb.FindingCode_FINDING_CODE_CIPHER_MISMATCH && len(t.suites) > 0 {
		text := has + join(unique(t.suites)) + ", and " + c.label() + " offers " + plural(len(c.GetCipherSuites()), "other suite")
		if !t.clashes() {
			text = has + "suites of " + c.label() + "’s (" + join(unique(t.suites)) + "), but none of its groups and signature schemes"
		}
		return text + answer
	}
	if len(t.accepted) == 0 {
		has += "nothing that " + c.label() + " has"
	} else {
		has += join(t.accepted) + onlyIf(t.whole && len(t.accepted) == 1)
	}
	own := c.label() + " offers " + join(c.versions) + onlyIf(len(c.versions) == 1)
	if c.ssl3Alone() {
		own = c.label() + ", with SSL 3.0 among its versions, offers that alone"
	}
	return has + ", and " + own + answer
}

func onlyIf(alone bool) string {
	if alone {
		return " alone"
	}
	return ""
}

// certHint says where to do what the profile says repairs a certificate, and for what, where that leaves
// nothing else to add; "" where a failure has a value of its own, which the fix does not know of.
func (c *client) certHint(p *pb.Finding, v *sight) string {
	if c == nil || v.state != bad || c.row(v.causes()[0]).GetFix() == "" {
		return ""
	}
	where := "at " + join(p.GetAddresses())
	leaf := leafIn(v.at().GetEvidence().GetTls().GetChain())
	switch cause := v.causes()[0]; cause { //nolint:exhaustive // the others have values of their own, or are none of certificates
	case pb.OriginCause_ORIGIN_CAUSE_NAME_MISMATCH:
		return where + ", for " + strings.Join(quoted(c.names()), " or ") + ":"
	case pb.OriginCause_ORIGIN_CAUSE_SERVER_NAME:
		return "the server " + where + " has a certificate that would do " + c.otherName(v) + ":"
	case pb.OriginCause_ORIGIN_CAUSE_HOST_NOT_FORWARDED:
		return "if viewers ask for " + quote(c.viewersName(leaf)) + " (--host-header shows whether that helps):"
	case pb.OriginCause_ORIGIN_CAUSE_LOAD_BALANCER_NAME:
		return "the certificate " + where + " is for " + join(quoted(leaf.GetDnsNames())) + ":"
	case pb.OriginCause_ORIGIN_CAUSE_EXPIRED:
		if p.GetFailure() == pb.Failure_FAILURE_CERT_INTERMEDIATE_EXPIRED {
			return ""
		}
	case pb.OriginCause_ORIGIN_CAUSE_CERTIFICATE_INVALID:
		if p.GetFailure() != pb.Failure_FAILURE_CERT_MALFORMED {
			return ""
		}
	case pb.OriginCause_ORIGIN_CAUSE_INTERMEDIATE_MISSING:
		return ""
	}
	return where + ":"
}

// refusalHint says what to look at, before what the profile says about it.
func (f *facts) refusalHint(r *pb.Finding, cause pb.OriginCause, spots []*spot) string {
	where := join(r.GetAddresses())
	switch {
	case cause == pb.OriginCause_ORIGIN_CAUSE_FIREWALL:
		return "check by `elsewhere allowlist cover` whether the firewall in front of " + where + " admits " + f.client.label() +
			"’s own addresses" + inBrackets(shown(f.client.GetRanges())) + "; the agents came from " + f.places(spots) + "."
	case cause == pb.OriginCause_ORIGIN_CAUSE_SERVER_NAME:
		return "the server at " + where + " has a certificate that would do " + f.client.otherName(failsOf(spots)[0]) + "."
	case f.client.row(cause).GetFix() != "":
		return "at " + where + ":"
	}
	return ""
}
