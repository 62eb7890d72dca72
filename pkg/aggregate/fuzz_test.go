package aggregate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// dice turns bytes into choices; past their end every choice is the first.
type dice struct{ data []byte }

func (d *dice) roll(n int) int {
	if len(d.data) == 0 {
		return 0
	}
	v := int(d.data[0]) % n
	d.data = d.data[1:]
	return v
}

func choose[T any](d *dice, options ...T) T { return options[d.roll(len(options))] }

// randomWorld builds a measurement of any kind with agents that saw anything, sensible or not.
func randomWorld(d *dice) *world {
	w := choose(d, tcpWorld, tlsWorld, func() *world { return dnsWorld("A") },
		func() *world { return httpWorld("https://www.example/") },
		func() *world { return tlsDoor(wantBlocked) },
		func() *world { return httpDoor(wantRefused) },
		func() *world { return expectStatus(httpWorld("https://www.example/"), "200") },
		func() *world { return originWorld(strict()) },
		func() *world { return originWorld(lenient()) },
		func() *world {
			return asking(originWorld(strict()), func(o *pb.OriginSpec) { o.Url = "https://192.0.2.1:22/" })
		},
		func() *world { return judgedFor(tlsWorld(), strict()) },
		func() *world { return dnsWorld("A", "192.0.2.1") },
		func() *world { return expectWorld(pb.Reachability_REACHABILITY_OPEN) },
		func() *world { return expectWorld(pb.Reachability_REACHABILITY_BLOCKED) })()
	w.m.State = choose(d, pb.State_STATE_FINISHED, pb.State_STATE_RUNNING)
	for i := range 1 + d.roll(8) {
		id := fmt.Sprintf("%s/%d", choose(d, "ap", "eu", "us"), i)
		switch d.roll(8) {
		case 0:
			w.gone(id, pb.AskState(d.roll(6)), pb.Failure(d.roll(20)))
		default:
			w.from(id, uint32(d.roll(3)), randomSteps(d, w.m.Spec))
		}
	}
	if d.roll(4) == 0 { // an answer that its ask knows nothing of, or does not wait for
		w.m.Asks[0].State = pb.AskState(d.roll(6))
	}
	return w
}

func randomSteps(d *dice, spec *pb.Spec) []*pb.Step {
	var steps []*pb.Step
	if spec.GetDns() != nil || d.roll(3) == 0 {
		for range 1 + d.roll(2) {
			steps = append(steps, randomQuery(d)...)
		}
		for range d.roll(4) {
			steps = append(steps, randomAuthority(d)...)
		}
		steps = randomDoubts(d, steps)
	}
	if spec.GetDns() != nil {
		return steps
	}
	for _, address := range []string{ip1, ip2, v61} {
		if newClient(spec) != nil && d.roll(3) > 0 {
			steps = then(steps, visited(address, randomHands(d), choose(d, uint32(200), 301, 403, 404, 502)))
			continue
		}
		switch d.roll(4) {
		case 0:
		case 1:
			steps = append(steps, tls(address, choose(d, "c1", "c2", ""), randomFailures(d, expired, weakKey, hung, pb.Failure_FAILURE_TLS_RESET, pb.Failure_FAILURE_TLS_ALERT)...)...)
			if d.roll(3) == 0 {
				steps = variants(steps, choose(d, pb.Variant_VARIANT_NO_NAME, pb.Variant_VARIANT_SMALL_HELLO))
			}
			if d.roll(2) == 0 {
				steps = append(steps, response(address, uint32(100*d.roll(6)+d.roll(4)), choose(d, none, none, httpStatus, httpHung, refused, expired, servfail)))
			}
		default:
			steps = append(steps, attemptsOf(int32(d.roll(3)), tcp(address, choose(d, none, none, timeout, refused, prohibited, noFamily, noEgress, deadline, servfail, pb.Failure(0))))...)
		}
	}
	for _, address := range []string{"192.0.2.1:443", "192.0.2.2:443", "[2001:db8:c::1]:443"} {
		if d.roll(3) > 0 {
			steps = append(steps, ctl(address, choose(d, none, none, timeout, deadline, noEgress))...)
		}
	}
	return steps
}

// randomHands is any combination of what a server may do in a handshake.
func randomHands(d *dice) hands {
	h := hands{
		own:   choose(d, 0, 0, noVersion, noSuite, tlsAlert, wantsCert, hung, tlsReset, notTLS, deadline),
		offer: choose(d, 0, 0, noVersion, noSuite, tlsAlert, noName, hung, tlsReset, notTLS, deadline, timeout),
		wrong: randomFailures(d, expired, mismatch, selfSigned, disorder, weakKey, weakSign, keyUnknown),
		asks:  d.roll(4) == 0, noOffer: d.roll(4) == 0, attempts: int32(d.roll(3)),
		leaf:    keyed(choose(d, "RSA 2048", "RSA 1", "ECDSA P-384", "Ed25519", "")),
		version: choose(d, "", "TLS 1.3"), suite: suite13,
		accepts: choose(d, nil, accepting("TLS 1.3", []string{suite13}), accepting("TLS 1.2", []string{suiteChaCha})),
	}
	if d.roll(3) == 0 {
		h = forNames(h, "www.origin.example")
		h.other = choose(d, nil, map[pb.Variant]*pb.TLSEvidence{pb.Variant_VARIANT_NO_NAME: otherLeaf("")})
	}
	return h
}

func randomQuery(d *dice) []*pb.Step {
	n := 1 + d.roll(3)
	var steps []*pb.Step
	if f := choose(d, none, none, nxdomain, servfail, dnsSilent, nodata, timeout, bogon, bogus); f == none {
		steps = answers(n, "A", choose(d, "192.0.2.1", "192.0.2.2"))
		steps[0].Evidence.Addresses = choose(d, nil, []string{"192.0.2.1"})
	} else {
		steps = query(n, f)
	}
	if d.roll(3) > 0 {
		steps = append(steps, control53(n, choose(d, none, none, servfail, deadline))...)
	}
	return steps
}

// randomDoubts adds what makes one think about the first answer.
func randomDoubts(d *dice, steps []*pb.Step) []*pb.Step {
	if s := steps[0]; len(s.GetEvidence().GetReplies()) > 0 {
		switch d.roll(4) {
		case 0:
			injected(choose(d, "192.0.2.1", "192.0.2.2"), steps)
		case 1:
			errored(uint32(d.roll(24)), steps)
		case 2:
			living(uint32(d.roll(200)), steps)
		}
	} else if d.roll(2) == 0 {
		denying(uint32(d.roll(200)), 60, steps)
	}
	switch d.roll(6) {
	case 0:
		return answeredTLS(steps, "192.0.2.1:443", randomFailures(d, mismatch, expired, hung)...)
	case 1:
		return invented(steps, randomAddresses(d)...)
	case 2:
		return append(steps, asPublic(randomQuery(d))...)
	}
	return steps
}

func randomAddresses(d *dice) []string {
	return choose(d, nil, []string{"192.0.2.1"}, []string{"192.0.2.2"})
}

// randomAuthority is what one of the zone's own servers may say.
func randomAuthority(d *dice) []*pb.Step {
	n := 1 + d.roll(3)
	if f := choose(d, none, none, nxdomain, nodata, lame, dnsSilent, forbidden); f != none {
		return ownFails(n, f)
	}
	return living(choose(d, uint32(60), 3600), serial(uint32(d.roll(3)), own(n, "A", choose(d, "192.0.2.1", "192.0.2.2"))))
}

func randomFailures(d *dice, from ...pb.Failure) []pb.Failure {
	var all []pb.Failure
	for range d.roll(3) {
		all = append(all, choose(d, from...))
	}
	return all
}

// FuzzJudge holds what must be true of every verdict, whatever agents send.
func FuzzJudge(f *testing.F) {
	f.Add([]byte{}, uint64(1))
	f.Add([]byte("\x9d000101102801000A0"), uint64(8)) // a response that has no status
	for seed := range uint64(32) {                    // the first byte says what is asked
		data := randomBytes(seed)
		data[0] = byte(seed)
		f.Add(data, seed)
	}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) { checkWorld(t, data, seed) })
}

// The same over seeds, so that every run of the tests looks at many worlds.
func TestManyWorlds(t *testing.T) {
	for seed := range uint64(1000) {
		checkWorld(t, randomBytes(seed), seed)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func randomBytes(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	data := make([]byte, 400)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

func checkWorld(t *testing.T, data []byte, seed uint64) {
	t.Helper()
	d := &dice{data}
	w := randomWorld(d)
	m, results := proto.CloneOf(w.m), cloneAll(w.results)
	whole := w.judge()
	checkOrder(t, w, d, seed)
	if !proto.Equal(m, w.m) {
		t.Errorf("the measurement was modified: %s", cmp.Diff(m, w.m, protocmp.Transform()))
	}
	if !slices.EqualFunc(results, w.results, func(a, b *pb.Result) bool { return proto.Equal(a, b) }) {
		t.Errorf("the results were modified: %s", cmp.Diff(results, w.results, protocmp.Transform()))
	}
	checkLedger(t, w.m)
	checkOutcome(t, w, whole)
	for _, finding := range whole.GetFindings() {
		checkFinding(t, w, finding)
		checkAccusation(t, w, finding)
		if newClient(w.m.Spec) != nil && finding.GetSeverity() == pb.Severity_SEVERITY_ERROR && finding.GetPrediction() == nil {
			t.Errorf("no prediction: %s", line(finding))
		}
	}
	checkOneCause(t, whole)
}

func cloneAll(results []*pb.Result) []*pb.Result {
	var all []*pb.Result
	for _, r := range results {
		all = append(all, proto.CloneOf(r))
	}
	return all
}

// checkOrder: any order, any duplicates (also contradicting ones), any prefix and then the rest.
func checkOrder(t *testing.T, w *world, d *dice, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 11))
	all := slices.Concat(w.results, cloneAll(w.results))
	for _, other := range w.results {
		if r.IntN(3) == 0 {
			liar := proto.CloneOf(other)
			liar.Steps = randomSteps(d, w.m.Spec)
			all = append(all, liar)
		}
	}
	whole := Judge(w.m, all)
	for range 3 {
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		Judge(w.m, all[:r.IntN(len(all)+1)])
		if got := Judge(w.m, all); !proto.Equal(whole, got) {
			t.Errorf("order matters:\n%s", cmp.Diff(whole, got, protocmp.Transform()))
		}
	}
	shuffled := slices.Concat(w.results, w.results)
	r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	asks := proto.CloneOf(w.m)
	r.Shuffle(len(asks.Asks), func(i, j int) { asks.Asks[i], asks.Asks[j] = asks.Asks[j], asks.Asks[i] })
	if once, got := w.judge(), Judge(asks, shuffled); !proto.Equal(once, got) {
		t.Errorf("duplicates or the order of asks matter:\n%s", cmp.Diff(once, got, protocmp.Transform()))
	}
}

func checkLedger(t *testing.T, m *pb.Measurement) {
	t.Helper()
	l, open := Tally(m.GetAsks()), int32(0)
	for _, a := range m.GetAsks() {
		if s := a.GetState(); s <= pb.AskState_ASK_STATE_PENDING {
			open++
		}
	}
	if sum := l.Answered + l.Lost + l.Refused + l.Ineligible + open; l.Asked != sum || int(l.Asked) != len(m.GetAsks()) {
		t.Errorf("asked %d, but the rest sums to %d", l.Asked, sum)
	}
}

// checkOutcome recomputes the outcome from the findings, in the taxonomy's words.
func checkOutcome(t *testing.T, w *world, v *pb.Verdict) {
	t.Helper()
	has := func(is func(*pb.Finding) bool) bool { return slices.ContainsFunc(v.GetFindings(), is) }
	failed := has(func(f *pb.Finding) bool { return f.GetSeverity() == pb.Severity_SEVERITY_ERROR })
	weak := has(func(f *pb.Finding) bool { return f.GetCode() == pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE })
	switch o := v.GetOutcome(); {
	case failed != (o == pb.Outcome_OUTCOME_FAIL):
		t.Errorf("outcome %v, with an ERROR: %v", o, failed)
	case !failed && weak && o != pb.Outcome_OUTCOME_INCONCLUSIVE:
		t.Errorf("outcome %v with insufficient_vantage", o)
	case o == pb.Outcome_OUTCOME_OK && len(w.results) == 0:
		t.Errorf("OK without a result")
	}
}

// checkAccusation: each region that an ERROR lists has an agent that shows it, found here by reading
// the raw steps again.
func checkAccusation(t *testing.T, w *world, f *pb.Finding) {
	t.Helper()
	if f.GetSeverity() != pb.Severity_SEVERITY_ERROR {
		return
	}
	for _, region := range f.GetRegions() {
		shown := slices.ContainsFunc(w.results, func(r *pb.Result) bool {
			i := slices.IndexFunc(w.m.Asks, func(a *pb.Ask) bool { return a.GetAgent() == r.GetAgent() })
			ask := w.m.Asks[i]
			return ask.GetVantage().GetRegion() == region && ask.GetState() < pb.AskState_ASK_STATE_LOST &&
				slices.ContainsFunc(r.GetSteps(), func(s *pb.Step) bool { return shows(f, s, r.GetSteps()) })
		})
		if !shown {
			t.Errorf("%s is accused without evidence: %s", region, line(f))
		}
	}
}

// shows says whether s is evidence for f: it fails at f's stage with a control passing or with bytes
// of the target; or, where a failed expectation is about success, it succeeds.
func shows(f *pb.Finding, s *pb.Step, all []*pb.Step) bool {
	switch f.GetCode() {
	case pb.FindingCode_FINDING_CODE_LAME_DELEGATION:
		return s.GetRole() == pb.Role_ROLE_AUTHORITY && slices.Contains(f.GetFailures(), s.GetFailure())
	case pb.FindingCode_FINDING_CODE_ANSWERS_UNSYNCED:
		return s.GetRole() == pb.Role_ROLE_AUTHORITY && (s.GetFailure() == none || aboutName(s.GetFailure()))
	default:
	}
	if f.GetPrediction() != nil && showsClient(f, s) {
		return true
	}
	if s.GetRole() != pb.Role_ROLE_TARGET && s.GetRole() != pb.Role_ROLE_PUBLIC { // the latter's users see it too
		return false
	}
	if f.GetFailure() == none {
		return s.GetFailure() == none
	}
	if !slices.Contains(f.GetFailures(), s.GetFailure()) && !slices.ContainsFunc(s.GetFailures(), func(x pb.Failure) bool { return slices.Contains(f.GetFailures(), x) }) {
		return false
	}
	if stageOf(f.GetFailure()) == pb.Stage_STAGE_CERTIFICATE || answered(s.GetFailure()) {
		return true
	}
	return slices.ContainsFunc(all, func(c *pb.Step) bool {
		if c.GetRole() != pb.Role_ROLE_CONTROL || c.GetFailure() != none {
			return false
		}
		if s.GetKind() == pb.StepKind_STEP_KIND_DNS_QUERY {
			return c.GetKind() == s.GetKind() && c.GetAddress() == s.GetAddress()
		}
		return c.GetKind() == pb.StepKind_STEP_KIND_TCP_CONNECT && (c.GetAddress()[0] == '[') == (s.GetAddress()[0] == '[')
	})
}

// showsClient says whether s shows what the client of a profile alone minds.
func showsClient(f *pb.Finding, s *pb.Step) bool {
	t := s.GetEvidence().GetTls()
	cause := f.GetPrediction().GetCause()
	if cause == pb.OriginCause_ORIGIN_CAUSE_ADDRESS_ORIGIN || cause == pb.OriginCause_ORIGIN_CAUSE_PORT_NOT_ALLOWED {
		return true // no step is needed
	}
	return slices.ContainsFunc(f.GetFailures(), func(failure pb.Failure) bool {
		switch failure {
		case wantsCert:
			return t.GetClientCertificateRequested() || s.GetFailure() == failure
		case mismatch, keyUnknown:
			return len(t.GetChain()) > 0
		default: // the client's own hello, and what it met
			return s.GetVariant() == pb.Variant_VARIANT_PROFILE_OFFER && slices.Contains(s.GetFailures(), failure)
		}
	})
}

// checkOneCause: no pair of region and address stands in two ERRORs (rule 12). certificate_problem is
// about all that was judged, whichever region tried which address, and names no pairs; nor does answers_unsynced,
// which is about a zone's servers as a whole.
func checkOneCause(t *testing.T, v *pb.Verdict) {
	t.Helper()
	told := map[string]string{}
	for _, f := range v.GetFindings() {
		switch f.GetCode() {
		case pb.FindingCode_FINDING_CODE_CERTIFICATE_PROBLEM, pb.FindingCode_FINDING_CODE_ANSWERS_UNSYNCED:
			continue
		default:
		}
		if f.GetSeverity() != pb.Severity_SEVERITY_ERROR {
			continue
		}
		for _, r := range f.GetRegions() {
			for _, a := range f.GetAddresses() {
				if old := told[r+a]; old != "" {
					t.Errorf("%s at %s is told twice:\n%s\n%s", r, a, old, line(f))
				}
				told[r+a] = line(f)
			}
		}
	}
}
