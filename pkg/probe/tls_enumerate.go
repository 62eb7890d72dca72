package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of an enumeration.
const (
	maxHandshakes       = 300
	handshakesPerSecond = 20
	oneHandshake        = 3 * time.Second
	maxUnanswered       = 3  // Handshakes in a row without a word; then the server has had enough.
	bearableList        = 16 // Suites that no server chokes on.
)

var (
	errTooMany  = fmt.Errorf("after %d handshakes", maxHandshakes)
	errStopped  = errors.New("the server no longer answers")
	errNoTime   = errors.New("the time was over")
	errNoPermit = errors.New("the agent's policy does not allow more")
)

// spoke says whether a handshake that ended so had a TLS server at its other end, which can be asked for more.
func spoke(f pb.Failure) bool {
	return isCertificate(f) || slices.Contains([]pb.Failure{
		pb.Failure_FAILURE_NONE, pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING, pb.Failure_FAILURE_TLS_ALERT, pb.Failure_FAILURE_TLS_MALFORMED,
		pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED, pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER,
		pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME, pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED,
	}, f)
}

// enumerate finds out what a server accepts, version by version, from what it chooses: what it chose is
// left out of the next offer, until it chooses nothing. It takes about one handshake for each suite, as
// far as ServerHello, all paced.
func (t *trace) enumerate(ctx context.Context, g greeting) {
	s := t.open(&pb.Step{
		Kind: pb.StepKind_STEP_KIND_TLS_ENUMERATION, Role: g.aim.role, Beside: g.aim.beside, Name: g.sent(), Address: g.addr.String(), Attempts: 1,
	})
	e := &enumeration{step: s, greeting: g, ctx: ctx, pace: rate.NewLimiter(handshakesPerSecond, 1)}
	for v := flight.TLS13; v >= flight.SSL30 && e.stopped == nil; v-- {
		e.version(v)
	}
	ev := &pb.TLSEvidence{ServerName: g.sent(), Versions: e.versions}
	s.see(func(all *pb.Evidence) { all.Tls = ev })
	switch {
	case e.stopped == nil:
		s.end()
	case len(e.versions) == 0 && errors.Is(e.stopped, errNoTime):
		s.say(e.stopped)
		s.end(pb.Failure_FAILURE_AGENT_DEADLINE)
	case len(e.versions) == 0 && errors.Is(e.stopped, errStopped):
		s.end(e.shut)
	case errors.Is(e.stopped, errNoPermit):
		s.end(pb.Failure_FAILURE_AGENT_POLICY_DENIED)
	default: // What was found stands.
		s.say(fmt.Errorf("this is not all, it was ended early: %w", e.stopped))
		s.end()
	}
}

// enumeration is what is being found out about one server.
type enumeration struct {
	*step
	greeting
	ctx        context.Context // Of one call of enumerate.
	pace       *rate.Limiter
	handshakes int
	unanswered int
	shut       pb.Failure // How the last connect failed.
	stopped    error      // Why it goes no further.
	versions   []*pb.VersionSupport
}

// version finds out about one version.
func (e *enumeration) version(v uint16) {
	before := e.handshakes
	out := &pb.VersionSupport{Version: flight.VersionName(v)}
	suites, refusal := e.suites(v, flight.Suites(v))
	out.Supported = len(suites) > 0
	if out.GetSupported() {
		out.ServerPreference = e.prefers(v, suites)
		out.Groups = names(e.groups(v, suites), flight.GroupName)
	} else {
		out.Failure = refusal
	}
	if e.stopped != nil && !out.GetSupported() {
		return // Nothing is known.
	}
	out.CipherSuites = names(suites, flight.SuiteName)
	out.Handshakes = int32(e.handshakes - before)
	e.versions = append(e.versions, out)
}

func names(ids []uint16, name func(uint16) string) (out []string) {
	for _, id := range ids {
		out = append(out, name(id))
	}
	return out
}

// suites returns the suites of a list that the server accepts, in the order in which it chooses them, and
// how it refuses the rest. A server that chokes on a long list gets it in halves, and then what it
// accepted once more, for the order.
func (e *enumeration) suites(v uint16, list []uint16) (accepted []uint16, refusal pb.Failure) {
	accepted, refusal = e.eliminate(v, list)
	if len(accepted) > 0 || !choked(refusal) || len(list) <= bearableList || e.stopped != nil {
		return accepted, refusal
	}
	front, _ := e.suites(v, list[:len(list)/2])
	back, refusal := e.suites(v, list[len(list)/2:])
	accepted = slices.Concat(front, back)
	if len(front) > 0 && len(back) > 0 && len(accepted) <= bearableList {
		if ordered, _ := e.eliminate(v, accepted); len(ordered) == len(accepted) {
			return ordered, refusal
		}
	}
	return accepted, refusal
}

// choked says whether a server died of a hello rather than refuse it.
func choked(f pb.Failure) bool {
	return f == pb.Failure_FAILURE_TLS_RESET || f == pb.Failure_FAILURE_TLS_CLOSED || f == pb.Failure_FAILURE_TLS_TIMEOUT
}

// eliminate offers a list again and again, each time without what was chosen.
func (e *enumeration) eliminate(v uint16, list []uint16) (accepted []uint16, refusal pb.Failure) {
	for rest := slices.Clone(list); len(rest) > 0; {
		f, refusal := e.greet(e.hello(v, rest))
		i := slices.Index(rest, f.Suite)
		if !f.Hello || f.Version != v || i < 0 {
			return accepted, e.refused(f, v, refusal)
		}
		accepted, rest = append(accepted, f.Suite), slices.Delete(rest, i, i+1)
	}
	return accepted, pb.Failure_FAILURE_UNSPECIFIED
}

// refused says how a server refused: one that answers with another version does not have this one.
func (e *enumeration) refused(f *flight.Flight, v uint16, refusal pb.Failure) pb.Failure {
	if f.Hello && f.Version != v {
		return pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED
	}
	return refusal
}

// prefers says whether the order is the server's: offered the other way round, it chooses the same.
func (e *enumeration) prefers(v uint16, suites []uint16) bool {
	if len(suites) < 2 || e.stopped != nil {
		return false
	}
	reversed := slices.Clone(suites)
	slices.Reverse(reversed)
	f, _ := e.greet(e.hello(v, reversed))
	return f.Hello && f.Suite == suites[0]
}

// groups returns the groups that the server chooses, in the order in which it does. In TLS 1.3 a hello
// without a key share makes it name the group that it wants, so that post-quantum groups can be asked for
// without their keys (RFC 8446, 4.1.4). Below, the client's groups are those of the certificate's key too
// (RFC 8422, 5.1): the one that the server cannot do without stays in the offer, as the last.
func (e *enumeration) groups(v uint16, suites []uint16) (accepted []uint16) {
	if v < flight.TLS12 { // Older versions have those of TLS 1.2.
		return nil
	}
	if v == flight.TLS12 {
		suites = slices.DeleteFunc(slices.Clone(suites), func(id uint16) bool {
			return !strings.Contains(flight.SuiteName(id), "_ECDHE_")
		})
	}
	rest := flight.Groups()
	if v == flight.TLS13 {
		rest = append([]uint16{4588, 4587, 4589}, rest...)
	}
	onlyECDSA := !slices.ContainsFunc(suites, func(id uint16) bool { return !strings.Contains(flight.SuiteName(id), "_ECDSA_") })
	var needed []uint16
	for len(suites) > 0 && len(rest) > 0 {
		g := e.group(v, suites, slices.Concat(rest, needed))
		i := slices.Index(rest, g)
		switch {
		case i >= 0:
			accepted, rest = append(accepted, g), slices.Delete(rest, i, i+1)
		case g == 0 && needed == nil && len(accepted) > 0 && onlyECDSA:
			needed = accepted[len(accepted)-1:]
		default: // It has no other one.
			return accepted
		}
	}
	return accepted
}

// group returns the group that the server chooses of some, or 0.
func (e *enumeration) group(v uint16, suites, groups []uint16) uint16 {
	h := e.hello(v, suites)
	h.Groups, h.KeyShares = groups, nil
	f, _ := e.greet(h)
	if !f.Hello || f.Version != v || !slices.Contains(suites, f.Suite) || !slices.Contains(groups, f.Group) {
		return 0
	}
	return f.Group
}

// hello offers a list of suites in one version.
func (e *enumeration) hello(v uint16, suites []uint16) *flight.Hello {
	h := anything(v, e.sent())
	h.Suites = suites
	return h
}

// greet makes one handshake as far as the flight, in its turn; one that got no connection is made again.
// The flight is never nil.
func (e *enumeration) greet(h *flight.Hello) (*flight.Flight, pb.Failure) {
	for e.allowed() {
		e.handshakes++
		f, failure := e.once(h)
		switch {
		case over(e.ctx):
			e.stopped = errNoTime
		case f.Records > 0 || failure == pb.Failure_FAILURE_TLS_CLOSED:
			e.unanswered = 0
		default:
			e.unanswered++
		}
		connected := failure == pb.Failure_FAILURE_NONE || failure >= pb.Failure_FAILURE_TLS_TIMEOUT
		if !connected {
			e.shut = failure
		}
		if e.stopped == nil && e.unanswered >= maxUnanswered && (!connected || len(e.versions) > 0) {
			e.stopped = errStopped
		}
		if connected {
			return f, failure
		}
	}
	return &flight.Flight{}, pb.Failure_FAILURE_UNSPECIFIED
}

// allowed waits for the next handshake's turn, and says whether there is one.
func (e *enumeration) allowed() bool {
	switch {
	case e.stopped != nil:
	case e.handshakes >= maxHandshakes:
		e.stopped = errTooMany
	case e.pace.Wait(e.ctx) != nil || over(e.ctx):
		e.stopped = errNoTime
	default:
		if err := e.t.permit(e.addr, toConnect); err != nil {
			e.say(err)
			e.stopped = errNoPermit
		}
	}
	return e.stopped == nil
}

// once makes one handshake on a connection of its own.
func (e *enumeration) once(h *flight.Hello) (*flight.Flight, pb.Failure) {
	ctx, cancel := context.WithTimeout(e.ctx, oneHandshake)
	defer cancel()
	raw, evidence, err := e.t.env.connect(ctx, e.addr)
	if err != nil {
		return &flight.Flight{}, connectFailure(e.ctx, e.addr, evidence, err)
	}
	defer func() { _ = raw.Close() }()
	conn := &countedConn{Conn: raw}
	f, err := hail(ctx, conn, h)
	e.see(func(ev *pb.Evidence) {
		ev.LocalAddress = conn.LocalAddr().String()
		ev.BytesRead += conn.read.Load()
	})
	if err == nil {
		return f, pb.Failure_FAILURE_NONE
	}
	failure, _ := handshakeFailure(e.ctx, err, said{first: conn.first})
	return f, failure
}
