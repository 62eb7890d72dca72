package aggregate

import (
	"cmp"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// readExchange judges an exchange, unless what is below it is what broke.
func (f *facts) readExchange(a *agent, i int, s *pb.Step) {
	t := f.address(s.GetAddress())
	if t == nil {
		return
	}
	v := f.newSight(a, t, i)
	f.weigh(v, a.control(t))
	f.receive(v)
	f.atDoor(v)
	if v = f.onTop(v); v != nil {
		a.see(v)
	}
}

// denied says whether the server refused to serve whoever asked (RFC 9110, 15.5.4; RFC 7725).
func denied(s *pb.Step) bool {
	status := s.GetEvidence().GetHttp().GetStatus()
	return status == http.StatusForbidden || status == http.StatusUnavailableForLegalReasons
}

// toldBy is the finding that a response tells by itself, wherever it was seen: what was expected is not
// so, or whoever answered says that it is broken. FINDING_CODE_UNSPECIFIED: what it means is for the
// comparison of regions and addresses to say.
func (f *facts) toldBy(s *pb.Step) pb.FindingCode {
	asked, response := f.m.GetSpec().GetHttp(), s.GetEvidence().GetHttp()
	expects := len(asked.GetExpectStatus())+len(asked.GetExpectHeader()) > 0 || asked.GetExpectBody() != ""
	switch failure := s.GetFailure(); {
	case failure == pb.Failure_FAILURE_HTTP_BODY_MISMATCH, failure == pb.Failure_FAILURE_HTTP_STATUS && expects:
		return pb.FindingCode_FINDING_CODE_EXPECTATION_FAILED
	case failure != pb.Failure_FAILURE_HTTP_STATUS:
		return pb.FindingCode_FINDING_CODE_UNSPECIFIED
	case response.GetEdge().GetGenerated() && response.GetStatus() >= http.StatusInternalServerError:
		return pb.FindingCode_FINDING_CODE_EDGE_ERROR
	case response.GetStatus() >= http.StatusInternalServerError:
		return pb.FindingCode_FINDING_CODE_UPSTREAM_ERROR
	}
	return pb.FindingCode_FINDING_CODE_UNSPECIFIED
}

// exchangeFindings judge the responses that tell by themselves what is wrong. In the spots that are left
// for the comparison whoever got one has come through: the way to the server is open.
func (f *facts) exchangeFindings(spots []*spot) (findings []*pb.Finding, left []*spot) {
	if !f.exchanges() {
		return nil, spots
	}
	relayed := f.relayed(spots)
	type bundle struct {
		code pb.FindingCode
		way  string
	}
	told := map[bundle][]*spot{}
	for _, s := range spots {
		byCode, way := f.told(s, relayed)
		left = append(left, way)
		for code, fails := range byCode {
			b := bundle{code, responses(fails)}
			told[b] = append(told[b], &spot{thing: s.thing, region: s.region, fails: fails})
		}
	}
	dispute(left)
	for b, alike := range told {
		for _, part := range apart(spots, alike) {
			findings = append(findings, f.exchangeFinding(b.code, part, oksOf(spots)))
		}
	}
	return findings, left
}

// told takes the responses that tell by themselves what is wrong out of a shut spot, by what they tell.
func (f *facts) told(s *spot, relayed func(*sight) bool) (byCode map[pb.FindingCode][]*sight, way *spot) {
	if !s.shut() {
		return nil, s
	}
	byCode, way = map[pb.FindingCode][]*sight{}, &spot{thing: s.thing, region: s.region}
	for _, v := range s.fails {
		code := f.toldBy(v.at())
		if relayed(v) {
			way.oks = append(way.oks, through([]*sight{v})...)
			continue
		}
		if code == pb.FindingCode_FINDING_CODE_UNSPECIFIED {
			way.fails = append(way.fails, v)
			continue
		}
		byCode[code], way.oks = append(byCode[code], v), append(way.oks, through([]*sight{v})...)
	}
	return byCode, way
}

// through are failing sights as those of agents that have come through.
func through(fails []*sight) []*sight {
	all := make([]*sight, len(fails))
	for i, v := range fails {
		whole := *v
		whole.state = good
		all[i] = &whole
	}
	return all
}

// exchangeFinding states what the responses of spots tell.
func (f *facts) exchangeFinding(code pb.FindingCode, spots []*spot, good []*sight) *pb.Finding {
	e := newFinding(code, spots, good)
	e.Blame = pb.Blame_BLAME_TARGET
	fails := failsOf(spots)
	e.Confidence = f.confidence(fails)
	e.Summary = join(e.GetRegions()) + ": " + f.targetURL() + " at " + join(e.GetAddresses()) + " " +
		verb(e.GetAddresses(), "answers", "answer") + " " + cmp.Or(responses(fails), "without a status") + f.responseWords(code, fails) + inBrackets(sole(fails))
	if responses(good) != "" {
		e.Summary += ", while " + join(regionNames(good)) + " " + verb(regionNames(good), "gets", "get") + " " + responses(good)
		if other := collect(good, func(v *sight) string { return v.thing.text }); joined(other) != joined(e.GetAddresses()) {
			e.Summary += " from " + join(other)
		}
	}
	e.Summary += "."
	if e.Hint = exchangeHint(code, fails); f.client != nil && code == pb.FindingCode_FINDING_CODE_UPSTREAM_ERROR {
		e.Hint = ""
	}
	f.foretellResponse(e, fails)
	return e
}

// responses are the status codes of responses: "502 Bad Gateway", "200, 404".
func responses(sights []*sight) string {
	codes := collect(sights, func(v *sight) string {
		if status := v.at().GetEvidence().GetHttp().GetStatus(); status > 0 {
			return strconv.FormatUint(uint64(status), 10)
		}
		return ""
	})
	if len(codes) == 1 {
		number, _ := strconv.Atoi(codes[0])
		return strings.TrimSpace(codes[0] + " " + http.StatusText(number))
	}
	return join(codes)
}

// responseWords says what else the first response shows of the cause.
func (f *facts) responseWords(code pb.FindingCode, fails []*sight) string {
	response := fails[0].at().GetEvidence().GetHttp()
	switch code {
	case pb.FindingCode_FINDING_CODE_EDGE_ERROR:
		text := "; " + shown(response.GetEdge().GetProvider()) + "’s edge made this page itself"
		if cause := response.GetEdge().GetCause(); cause != "" {
			text += ": " + quote(cause)
		}
		return text
	case pb.FindingCode_FINDING_CODE_EXPECTATION_FAILED:
		unmet := make([]string, 0, len(response.GetUnmet()))
		for _, u := range response.GetUnmet() {
			unmet = append(unmet, shown(u))
		}
		if len(unmet) > 0 {
			return "; " + join(unmet)
		}
	default:
	}
	return ""
}

// exchangeHint says whom to ask.
func exchangeHint(code pb.FindingCode, fails []*sight) string {
	switch code {
	case pb.FindingCode_FINDING_CODE_EDGE_ERROR:
		edge := fails[0].at().GetEvidence().GetHttp().GetEdge()
		hint := "look at the origin behind " + shown(edge.GetProvider()) + ": `elsewhere tls` and `elsewhere http` on its own name show what the edge meets"
		if edge.GetRequestId() != "" {
			hint += "; its support wants the request id " + quote(edge.GetRequestId())
		}
		return hint + "."
	case pb.FindingCode_FINDING_CODE_UPSTREAM_ERROR:
		return "the server, or what it is a proxy for, is broken: look at its own log."
	default:
		return "compare what the server sends with what was expected; `show` with --format json has the response."
	}
}

// exchanges says whether a request and a response are looked at.
func (f *facts) exchanges() bool {
	return f.m.GetSpec().GetHttp() != nil || f.m.GetSpec().GetOrigin() != nil
}

// url is the URL that is looked at.
func (f *facts) url() string {
	return cmp.Or(f.m.GetSpec().GetHttp().GetUrl(), f.m.GetSpec().GetOrigin().GetUrl())
}

// targetURL is the same for a sentence.
func (f *facts) targetURL() string { return shown(f.url()) }

// urlHost is the host of the URL that is looked at.
func (f *facts) urlHost() string {
	u, err := url.Parse(f.url())
	if err != nil {
		return ""
	}
	return u.Hostname()
}
