package probe

import (
	"context"
	"slices"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// smallSegment is the size of TCP segments that every path lets through: that of IPv4's smallest MTU that
// hosts must accept, less the headers (RFC 9293, 3.7.1).
const smallSegment = 536

// interfered says whether a handshake failed as if something on the path had looked into it.
// An alert is among them: so early nothing is signed, and a box on the path can send one in the server's name.
func interfered(f pb.Failure) bool {
	return slices.Contains([]pb.Failure{
		pb.Failure_FAILURE_TLS_RESET, pb.Failure_FAILURE_TLS_TIMEOUT, pb.Failure_FAILURE_TLS_CLOSED,
		pb.Failure_FAILURE_TLS_ALERT, pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME,
	}, f)
}

// interfere begins the variants of a target's failing handshake, all at once, beside its second attempt:
// which of them get through says what stops the others.
func (h *shaker) interfere(ctx context.Context) {
	// A server that only wants another application protocol gets it with the second attempt.
	if h.aim.role != pb.Role_ROLE_TARGET || h.noALPN || !interfered(h.first) || !h.t.once("variants "+h.addr.String()) {
		return
	}
	for _, v := range []pb.Variant{
		pb.Variant_VARIANT_OTHER_NAME, pb.Variant_VARIANT_NO_NAME,
		pb.Variant_VARIANT_SMALL_HELLO, pb.Variant_VARIANT_SMALL_SEGMENTS,
	} {
		if v == pb.Variant_VARIANT_NO_NAME && (h.sent() == "" || h.client != nil && h.client.names != nil) {
			continue // It is what failed, or was begun beside the first attempt.
		}
		h.t.spawn(func() { h.t.variant(ctx, h.changed(v), v) })
	}
}

// changed returns the handshake as a variant makes it.
func (h *shaker) changed(v pb.Variant) greeting {
	g := h.greeting
	g.aim = aim{role: pb.Role_ROLE_VARIANT, beside: &h.index}
	switch v { //nolint:exhaustive // Small segments are the connection's; the other variants are not of handshakes.
	case pb.Variant_VARIANT_OTHER_NAME:
		g.mute, g.alias = false, harmless(g.sent())
	case pb.Variant_VARIANT_NO_NAME:
		g.mute = true
	case pb.Variant_VARIANT_SMALL_HELLO:
		g.offer = smallOffer()
	case pb.Variant_VARIANT_PROFILE_OFFER:
		g.offer, g.alpn = g.client.offer, nil // Profiles say nothing of ALPN, and clients of HTTP/1.1 need none.
	case pb.Variant_VARIANT_ORIGIN_NAME:
		g.mute, g.alias = false, g.client.domain
	}
	return g
}

// harmless returns a name that nobody minds, other than name (RFC 2606).
func harmless(name string) string {
	if name == "www.example.com" {
		return "www.example.net"
	}
	return "www.example.com"
}

// smallOffer is for a ClientHello of less than 512 bytes, without post-quantum groups. The library makes
// it, so that it goes as far as the handshake that failed: a server that ends connections later than with
// its first flight is not one that minds long hellos.
func smallOffer() *offer {
	return &offer{versions: []uint16{flight.TLS10, flight.TLS11, flight.TLS12, flight.TLS13}, groups: []uint16{29, 23, 24}}
}

// variant makes one handshake on a connection of its own, and says what stopped it.
func (t *trace) variant(ctx context.Context, g greeting, v pb.Variant) pb.Failure {
	h := t.shaker(g)
	h.pb.Variant = v
	if err := h.offer.impossible(); err != nil {
		h.say(err)
		h.end(pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING)
		return pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING
	}
	if h.refused(g.addr, toConnect) {
		return pb.Failure_FAILURE_AGENT_POLICY_DENIED
	}
	var opts ConnectOptions
	if v == pb.Variant_VARIANT_SMALL_SEGMENTS {
		opts.MaxSegment = smallSegment
	}
	try := h.attempt
	if v == pb.Variant_VARIANT_PROFILE_OFFER { // By it the target is judged: one lost packet must not decide.
		try = func(ctx context.Context, op func(context.Context) pb.Failure) pb.Failure {
			return h.twice(ctx, func() {}, op)
		}
	}
	stopped := try(ctx, func(ctx context.Context) pb.Failure {
		conn, f := h.dialWith(ctx, g.addr, opts)
		if conn == nil {
			return f
		}
		f = h.shake(ctx, conn)
		if h.secured != nil {
			_ = h.secured.Close()
		}
		return f
	})
	h.end(append([]pb.Failure{stopped}, h.certificate...)...)
	return stopped
}
