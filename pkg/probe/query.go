package probe

import (
	"context"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Budgets of a query (docs/checks.md, How long it takes).
const (
	udpSends    = 5
	controlSend = 3 // The send that the controls run beside, when there is silence.
	ednsSends   = 3 // Later sends do without EDNS, which some middleboxes drop.
	lateWindow  = 250 * time.Millisecond
	tcpTimeout  = 3 * time.Second
	maxReplies  = 16   // Kept of one query.
	readSize    = 4096 // A server that heeds the size that is asked for by default never fills it.
)

// A query is the first thing that a censor, a tired resolver or a lossy path spoils, and each of them in
// its own way. So a query is sent from another socket each time, with a random port and ID; all sockets
// are read until the query ends, for a late reply to an early send is as good as any; and what does not
// belong to a query is never taken for its answer.

// query is a question to one server.
type query struct {
	server netip.AddrPort
	name   string
	qtype  uint16
	role   pb.Role
	beside *int32
	sends  int             // 0: udpSends.
	enough <-chan struct{} // Closed when NODATA needs no second look. Nil: never.
	// opts are the options that the query is sent with: class, transport, flags. Nil: the defaults.
	opts    *pb.DNSSpec
	variant pb.Variant
	// serverName is the server's name, where it was named. Default: it is known by its address alone.
	serverName string
	// quick bounds a query that is sent once, or sends times: the first reply ends it, whatever it says, and
	// silence ends it after this long, without TCP. 0: it is asked with all patience.
	quick time.Duration
	// manner is how the server wants to be asked, as far as it is known. As an asker's, it is what it found out.
	manner manner
	// thorough: a quick query that meets silence is asked at last without EDNS, and then over TCP.
	thorough bool
	// judge says what is wrong with a reply. Nil: replyFailure.
	judge func(m *dns.Msg, qtype uint16) pb.Failure
	// stranger: somebody on the network named the server, so that no exception of the policy holds for it.
	stranger bool
}

// manner is how a server wants to be asked.
type manner int

const (
	mannerUsual  manner = iota
	mannerPlain         // With EDNS it says nothing, or that it does not understand.
	mannerStream        // Over UDP it says nothing.
)

// answer is how a query ended.
type answer struct {
	step      *step
	failure   pb.Failure
	addresses []netip.Addr
	msg       *dns.Msg // The reply that decided, whatever it says. Nil: there was none.
	manner    manner
}

// reply is what one send brought: a message that belongs to the query, or an error.
type reply struct {
	msg   *dns.Msg
	rtt   time.Duration
	plain bool // The query was without EDNS.
	err   error
}

// asker is a query while it is asked.
type asker struct {
	query
	*step
	sent        []*datagram
	replies     chan reply
	failed      pb.Failure // How the last reply failed.
	lastErr     error      // Why there was no usable reply.
	unreachable int        // Sends that were answered by an error of the network.
	edns        bool
	again       bool     // A quick query goes on at once, without EDNS: that is what the reply was about.
	last        *dns.Msg // The last reply that was judged.
	shaker      *shaker  // Shakes hands, for the transports over TLS. Its certificate failures stop nothing.
}

// ask asks a question as the options say: over UDP, up to five times in five seconds, each time from
// another socket, then over TCP; or over one of the other transports alone. A reply that is a failure is
// asked for once more, at least a second later.
func (t *trace) ask(ctx context.Context, q query) answer {
	switch {
	case q.sends == 0 && q.quick > 0:
		q.sends = 1
	case q.sends == 0:
		q.sends = udpSends
	}
	if q.judge == nil {
		q.judge = replyFailure
	}
	a := &asker{query: q, edns: q.manner != mannerPlain, replies: make(chan reply, maxReplies/2)}
	a.step = t.open(&pb.Step{
		Kind: pb.StepKind_STEP_KIND_DNS_QUERY, Role: q.role, Name: q.name, Address: q.server.String(), Beside: q.beside,
		Type: dns.Type(q.qtype).String(), Variant: q.variant,
	})
	p := toQuery
	if q.stranger {
		p = toStranger
	}
	if a.refused(q.server, p) {
		return answer{step: a.step, failure: pb.Failure_FAILURE_AGENT_POLICY_DENIED}
	}
	var msg *dns.Msg
	var f pb.Failure
	// ANY is what amplification is made of: it goes over TCP, as dig has it, where the server knows who asks.
	if q.opts.GetTransport() == pb.Transport_TRANSPORT_UNSPECIFIED && q.manner != mannerStream && q.qtype != dns.TypeANY {
		msg, f = a.overDatagrams(ctx)
	} else {
		msg, f = a.overConnection(ctx)
	}
	out := answer{step: a.step, failure: f, msg: a.last, manner: a.manner}
	if msg != nil && (a.qtype == dns.TypeA || a.qtype == dns.TypeAAAA) {
		out.addresses = addresses(msg)
		a.see(func(e *pb.Evidence) {
			for _, ip := range out.addresses[:min(len(out.addresses), maxRecords)] {
				e.Addresses = append(e.GetAddresses(), ip.String())
			}
		})
	}
	a.end(append([]pb.Failure{f}, a.carried()...)...)
	return out
}

// replyFailure says what is wrong with a reply.
func replyFailure(m *dns.Msg, qtype uint16) pb.Failure {
	if f := rcodeFailure(m.Rcode); f != pb.Failure_FAILURE_NONE {
		return f
	}
	if !holds(m, qtype) {
		return pb.Failure_FAILURE_DNS_NODATA
	}
	return pb.Failure_FAILURE_NONE
}

// read parses a message and adds it to the evidence. What does not belong to the query is evidence too,
// and returned as an error alone.
func (a *asker) read(query *dns.Msg, wire []byte, transport string, rtt time.Duration) (*dns.Msg, error) {
	msg, err := parseReply(query, wire)
	a.see(func(e *pb.Evidence) {
		e.BytesRead += int32(len(wire))
		kept := e.GetReplies()
		// Whoever floods with guesses must not keep the true reply out.
		if msg == nil || len(kept) >= maxReplies || err != nil && len(kept) >= maxReplies/2 {
			return
		}
		r := describe(msg, len(wire))
		r.Transport, r.Rtt, r.Mismatched = transport, duration(rtt), err != nil
		e.Replies = append(kept, r)
	})
	if err != nil {
		return nil, err
	}
	return msg, nil
}
