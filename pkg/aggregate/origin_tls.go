package aggregate

import (
	"slices"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// talk is the handshakes of one agent with one address: its own, which its library made, and those beside it.
type talk struct {
	*client
	own      *pb.Step
	offer    int      // the index of the client's own hello, or -1
	accepted []string // the versions that the server accepts, as far as they were found out
	suites   []string // likewise the suites, of the versions that the client offers
	whole    bool     // all versions and suites were tried
}

// beside is the index of a variant of the agent's own handshake, or -1.
func (v *sight) beside(kind pb.Variant) int {
	for _, i := range v.agent.variants[v.own] {
		if v.agent.steps[i].GetVariant() == kind {
			return i
		}
	}
	return -1
}

// talk gathers what the handshakes at v's address show.
func (c *client) talk(v *sight) *talk {
	t := &talk{client: c, own: v.agent.steps[v.own], offer: v.beside(pb.Variant_VARIANT_PROFILE_OFFER)}
	t.learn(v.agent.enumerated(v.thing.text))
	if own := t.own.GetEvidence().GetTls(); len(t.accepted) == 0 && own.GetVersion() != "" {
		t.accepted, t.suites = []string{own.GetVersion()}, []string{own.GetCipherSuite()}
	}
	return t
}

// learn takes what an enumeration found out. A version of the client's that met silence may be there.
func (t *talk) learn(enumeration *pb.Step) {
	unsure := false
	for _, tried := range enumeration.GetEvidence().GetTls().GetVersions() {
		ours := slices.Contains(t.versions, tried.GetVersion())
		switch {
		case !tried.GetSupported():
			unsure = unsure || ours && !spoke(tried.GetFailure())
		case ours:
			t.suites = append(t.suites, tried.GetCipherSuites()...)
			fallthrough
		default:
			t.accepted = append(t.accepted, tried.GetVersion())
		}
	}
	t.whole = len(t.accepted) > 0 && !unsure
}

// spoke says whether a server refused a hello: by its own word, or by ending the connection.
func spoke(f pb.Failure) bool {
	return answered(f) || f == pb.Failure_FAILURE_TLS_CLOSED || f == pb.Failure_FAILURE_TLS_RESET
}

// enumerated is the step that found out what the server at an address accepts; else that of another
// address, since one of a name's addresses stands for those that are like it; nil if there is none.
func (a *agent) enumerated(address string) *pb.Step {
	var other *pb.Step
	for _, i := range a.enumerations {
		if a.steps[i].GetAddress() == address {
			return a.steps[i]
		}
		other = a.steps[i]
	}
	return other
}

// meet puts what the client's own hello meets in the place of what the agent's library met, which offers
// other versions and suites than the client does: what the agent cannot do is no fault of the target's,
// and what it can do is no proof. Without an answer to the hello, nothing is known but what shows that
// the two get on, or that they cannot.
func (f *facts) meet(v *sight, c *control) {
	if f.client == nil {
		return
	}
	t := f.client.talk(v)
	var offered *sight
	if t.offer >= 0 {
		offered = f.newSight(v.agent, v.thing, t.offer)
		offered.own = v.own
		if f.weigh(offered, c); certFailure(offered.at()) {
			offered.state = good
		}
	}
	switch f.client.decide(t, v, offered, f.policy.GetMinAttempts()) {
	case takeOffer:
		*v = *offered
	case takeNothing:
		v.state = unknown
	case takeApart:
		*v = *offered
		v.state, v.failure = bad, v.at().GetFailure()
	case takeOwn:
	}
	t.explain(v)
}

// offerAlone says whether the client's hello alone gets through, so that the agent, whose library cannot
// go on from there, asks for nothing.
func (f *facts) offerAlone(own *pb.Step) bool {
	t := own.GetEvidence().GetTls()
	return f.client != nil && (t.GetVersion() == "" || t.GetNegotiationOnly())
}

// choice is whose handshake counts.
type choice uint8

const (
	takeOwn choice = iota
	takeOffer
	takeApart // the offer's, which fails for what the server was found out to accept
	takeNothing
)

// decide says whose handshake counts: the agent's own, or the one that the client's hello began.
func (c *client) decide(t *talk, own, offered *sight, attempts int32) choice {
	switch {
	case offered != nil && offered.state == good:
		return takeOffer
	case offered != nil && offered.state == bad && answered(offered.failure) && offered.failure != own.failure:
		return takeOffer
	case (offered == nil || offered.state == unknown) && own.state == bad && negotiated(own.failure):
		return takeNothing // What the agent's library has not in common with the server, the client may have.
	case own.state == bad:
		return takeOwn // It failed too, and its variants say why.
	case offered != nil && offered.state == bad && offered.at().GetAttempts() >= attempts:
		return takeOffer
	case offered != nil && spoke(offered.at().GetFailure()) && t.whole && len(t.common()) == 0:
		return takeApart
	case own.state == good && !t.covered():
		return takeNothing
	}
	return takeOwn
}

// negotiated says whether a handshake failed for what one side offers and the other one wants.
func negotiated(f pb.Failure) bool {
	return f == pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED || f == pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER || f == pb.Failure_FAILURE_TLS_ALERT
}

// covered says whether the agent's own handshake agreed on what the client offers too, so that the client's
// need not be seen.
func (t *talk) covered() bool {
	own := t.own.GetEvidence().GetTls()
	within := func(list []string, value string) bool {
		return len(list) == 0 || value == "" || slices.Contains(list, value)
	}
	return within(t.versions, own.GetVersion()) && within(t.GetCipherSuites(), own.GetCipherSuite()) && within(t.GetGroups(), own.GetGroup())
}

// common are the versions that both have.
func (t *talk) common() []string {
	return slices.DeleteFunc(slices.Clone(t.accepted), func(version string) bool { return !slices.Contains(t.versions, version) })
}

// explain names the cause of a handshake that fails for the client, and finds that one which ended well
// fails it all the same.
func (t *talk) explain(v *sight) {
	own := t.own.GetFailure()
	asked := v.at().GetEvidence().GetTls().GetClientCertificateRequested()
	if len(v.at().GetEvidence().GetTls().GetChain()) == 0 { // A hello of TLS 1.3 does not come to see that.
		asked = asked || t.own.GetEvidence().GetTls().GetClientCertificateRequested()
	}
	if v.state == good && (own == pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED || asked && t.GetRefusesClientCertificateRequest()) {
		v.state, v.failure = bad, pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED
	}
	if v.state != bad {
		return
	}
	switch v.failure { //nolint:exhaustive // the others say it all
	case pb.Failure_FAILURE_TLS_NOT_TLS:
		v.because = []pb.OriginCause{pb.OriginCause_ORIGIN_CAUSE_NOT_TLS}
	case pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME:
		v.because = []pb.OriginCause{pb.OriginCause_ORIGIN_CAUSE_TLS_NEGOTIATION}
		if t.otherName(v) != "" {
			v.because = []pb.OriginCause{pb.OriginCause_ORIGIN_CAUSE_SERVER_NAME}
		}
	case pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED, pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER, pb.Failure_FAILURE_TLS_ALERT,
		pb.Failure_FAILURE_TLS_CLOSED, pb.Failure_FAILURE_TLS_RESET:
		t.mismatch(v)
	}
}

// mismatch tells apart what the two have not in common. Alerts do not: some servers say handshake_failure
// to a version that they do not have, where protocol_version belongs (RFC 8446, 4.2.1), and others just close.
func (t *talk) mismatch(v *sight) {
	closed := v.failure == pb.Failure_FAILURE_TLS_CLOSED || v.failure == pb.Failure_FAILURE_TLS_RESET
	if closed && !t.whole {
		return
	}
	apart := len(t.versions) > 0 && len(t.accepted) > 0 && len(t.common()) == 0
	switch {
	case apart && (t.whole || v.failure == pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED):
		v.because = []pb.OriginCause{pb.OriginCause_ORIGIN_CAUSE_PROTOCOL}
		v.doubt = t.doubts()
	case t.refuses(leafIn(t.own.GetEvidence().GetTls().GetChain())) == pb.Severity_SEVERITY_ERROR:
		v.because = []pb.OriginCause{pb.OriginCause_ORIGIN_CAUSE_KEY}
	case closed && !t.clashes():
	case v.failure == pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED && !t.whole:
		v.because = []pb.OriginCause{pb.OriginCause_ORIGIN_CAUSE_PROTOCOL}
	case v.failure != pb.Failure_FAILURE_TLS_ALERT || t.whole:
		v.because = []pb.OriginCause{pb.OriginCause_ORIGIN_CAUSE_CIPHER}
	default:
		v.because = []pb.OriginCause{pb.OriginCause_ORIGIN_CAUSE_TLS_NEGOTIATION}
	}
}

// doubts is the field of the profile that "no version in common" rests on although it is not verified: the client
// may have a version that the server accepts after all, or come with others than it is said to by default. ""
// if there is no such doubt.
func (t *talk) doubts() string {
	accepts := func(versions []string) bool {
		return slices.ContainsFunc(t.accepted, func(version string) bool { return slices.Contains(versions, version) })
	}
	switch {
	case t.ssl3Alone():
	case accepts(t.GetUnverifiedVersions()):
		return "unverified_versions"
	case !t.configured && accepts(t.GetVersions()) && t.GetSources()["default_versions"].GetUnverified():
		return "default_versions"
	}
	return ""
}

// clashes says whether none of the suites that the server accepts is the client's.
func (t *talk) clashes() bool {
	return len(t.GetCipherSuites()) > 0 && !slices.ContainsFunc(t.suites, func(s string) bool { return slices.Contains(t.GetCipherSuites(), s) })
}

// oldVersion warns of servers that agree on no version from TLS 1.2 up (RFC 8996), where it is not certain that the
// client comes with older ones unless the question says so: it depends on settings that nobody showed.
func (f *facts) oldVersion(oks []*sight) *pb.Finding {
	if f.client == nil || f.client.configured || !f.client.GetSources()["default_versions"].GetUnverified() {
		return nil
	}
	var old []*sight
	var versions []string
	for _, v := range oks {
		version := v.at().GetEvidence().GetTls().GetVersion()
		if version != "TLS 1.0" && version != "TLS 1.1" {
			continue
		}
		old = append(old, v)
		if !slices.Contains(versions, version) {
			versions = append(versions, version)
		}
	}
	if len(old) == 0 {
		return nil
	}
	slices.Sort(versions)
	p := f.certWarning(old)
	p.Code, p.Stage = pb.FindingCode_FINDING_CODE_PROTOCOL_MISMATCH, pb.Stage_STAGE_TLS
	p.Prediction = f.client.predict(pb.OriginCause_ORIGIN_CAUSE_PROTOCOL, "default_versions")
	p.Summary = join(p.GetRegions()) + ": " + join(p.GetAddresses()) + " " + verb(p.GetAddresses(), "agrees", "agree") + " on " + join(versions) +
		" at most; " + f.client.label() + " speaks that only if the origin settings allow it, and those are not known."
	p.Hint = "enable TLS 1.2 at " + join(p.GetAddresses()) + ", or make sure that the origin settings have " + join(versions) +
		", and say which versions are set with --ssl-protocols."
	return p
}
