package aggregate

import (
	"net/http"
	"net/url"
	"slices"
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

// exchangeFindings judge the responses that tell by themselves what is wrong. The spots that are left
// for the comparison have those as open: the way to the server is.
func (f *facts) exchangeFindings(spots []*spot) (findings []*pb.Finding, left []*spot) {
	if f.m.GetSpec().GetHttp() == nil {
		return nil, spots
	}
	type bundle struct {
		code pb.FindingCode
		way  string
	}
	told := map[bundle][]*spot{}
	for _, s := range spots {
		code := pb.FindingCode_FINDING_CODE_UNSPECIFIED
		if s.shut() {
			code = f.toldAlike(s.fails)
		}
		if code == pb.FindingCode_FINDING_CODE_UNSPECIFIED {
			left = append(left, s)
			continue
		}
		b := bundle{code, responses(s.fails)}
		told[b] = append(told[b], s)
		left = append(left, &spot{thing: s.thing, region: s.region, oks: s.fails})
	}
	for b, alike := range told {
		for _, part := range apart(spots, alike) {
			findings = append(findings, f.exchangeFinding(b.code, part, oksOf(left)))
		}
	}
	return findings, left
}

// toldAlike is the finding that all responses of a spot tell, if it is one.
func (f *facts) toldAlike(fails []*sight) pb.FindingCode {
	code := f.toldBy(fails[0].at())
	for _, v := range fails[1:] {
		if f.toldBy(v.at()) != code {
			return pb.FindingCode_FINDING_CODE_UNSPECIFIED
		}
	}
	return code
}

// exchangeFinding states what the responses of spots tell.
func (f *facts) exchangeFinding(code pb.FindingCode, spots []*spot, others []*sight) *pb.Finding {
	good := slices.DeleteFunc(others, func(v *sight) bool { return v.state != good })
	e := newFinding(code, spots, good)
	e.Blame = pb.Blame_BLAME_TARGET
	fails := failsOf(spots)
	e.Confidence = f.confidence(fails)
	e.Summary = join(e.GetRegions()) + ": " + f.targetURL() + " at " + join(e.GetAddresses()) + " " +
		verb(e.GetAddresses(), "answers", "answer") + " " + responses(fails) + f.responseWords(code, fails) + inBrackets(sole(fails))
	if responses(good) != "" {
		e.Summary += ", while " + join(regionNames(good)) + " " + verb(regionNames(good), "gets", "get") + " " + responses(good)
		if other := collect(good, func(v *sight) string { return v.thing.text }); joined(other) != joined(e.GetAddresses()) {
			e.Summary += " from " + join(other)
		}
	}
	e.Summary += "."
	e.Hint = exchangeHint(code, fails)
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

// targetURL is the URL that is looked at.
func (f *facts) targetURL() string { return shown(f.m.GetSpec().GetHttp().GetUrl()) }

// urlHost is the host of the URL that is looked at.
func (f *facts) urlHost() string {
	u, err := url.Parse(f.m.GetSpec().GetHttp().GetUrl())
	if err != nil {
		return ""
	}
	return u.Hostname()
}
