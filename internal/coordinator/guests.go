package coordinator

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/access"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// guests are the streams of agents, so that each ends with the right to it.
type guests struct {
	mu      sync.Mutex
	byAgent map[string]map[*guest]bool
}

// guest is one stream.
type guest struct {
	key []byte
	end context.CancelCauseFunc
}

// enter notes a stream until leave is called.
func (g *guests) enter(agent string, one *guest) (leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.byAgent[agent] == nil {
		g.byAgent[agent] = map[*guest]bool{}
	}
	g.byAgent[agent][one] = true
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.byAgent[agent], one)
		if len(g.byAgent[agent]) == 0 {
			delete(g.byAgent, agent)
		}
	}
}

// recheck ends the streams of an agent that would not be let in now.
func (g *guests) recheck(e *pb.Enrolment) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for one := range g.byAgent[e.GetId()] {
		if err := welcome(e, one.key); err != nil {
			one.end(err)
		}
	}
}

// host has a stream of an agent end with its certificate, or when another enrolment says so. It looks again after the
// stream is noted: what came between the call's admission and that is not missed.
func (c *Coordinator) host(caller access.Caller, end context.CancelCauseFunc) (leave func()) {
	left := c.guests.enter(caller.Agent, &guest{caller.Key, end})
	timer := time.AfterFunc(time.Until(caller.Expires), func() {
		end(status.Errorf(codes.Unauthenticated, "the certificate of agent %s has ended: renew it first", caller.Agent))
	})
	if err := welcome(c.store.Enrolment(caller.Agent), caller.Key); err != nil {
		end(err)
	}
	return func() {
		timer.Stop()
		left()
	}
}

// errNotOwnKey says that a certificate is of the authority and its key is not the agent's.
var errNotOwnKey = status.Error(codes.PermissionDenied, "the agent has another key by now: two processes have one identity, or this one was restored from an old copy; stop one of them, or enrol anew with another token")

// welcome says whether a key speaks for an agent: the one that is enrolled, or the one before, since the answer to a
// renewal can be lost. The error is a status.
func welcome(e *pb.Enrolment, key []byte) error {
	switch {
	case e == nil:
		return status.Error(codes.Unauthenticated, "the agent is not enrolled here: enrol it with another token")
	case e.GetRevokeTime() != nil:
		return status.Errorf(codes.PermissionDenied, "agent %s was revoked at %s: to let it in again, delete its identity directory and start it with another token",
			e.GetId(), e.GetRevokeTime().AsTime().Format(time.RFC3339))
	case !bytes.Equal(key, e.GetKey()) && (len(e.GetPreviousKey()) == 0 || !bytes.Equal(key, e.GetPreviousKey())):
		return errNotOwnKey
	}
	return nil
}

// agentAt says which enrolled agent is at the other end of a connection, by its certificate: identity.ErrNoCertificate
// if there is none, or a status. Its certificate may have ended.
func (c *Coordinator) agentAt(shown tls.ConnectionState, from netip.Addr) (identity.Peer, error) {
	peer, err := c.authorities.Peer(shown)
	if errors.Is(err, identity.ErrNoCertificate) {
		return peer, err
	}
	if err != nil {
		return peer, status.Error(codes.Unauthenticated, err.Error())
	}
	err = welcome(c.store.Enrolment(peer.Agent), peer.Key)
	if errors.Is(err, errNotOwnKey) {
		event := &pb.AuditEvent{
			Kind: pb.AuditKind_AUDIT_KIND_SPOOFING_REFUSED, Agent: peer.Agent, Detail: "a certificate of this agent whose key is not its own any more",
		}
		if from.IsValid() {
			event.Address = from.String()
		}
		c.audit(event)
	}
	return peer, err
}

// admitNATS is embedded.Admit: enrolled agents whose certificates have not ended, once it is known who is enrolled.
func (c *Coordinator) admitNATS(shown tls.ConnectionState) (agent string, until time.Time, err error) {
	if !c.recovered.Load() {
		return "", time.Time{}, errors.New("the coordinator is about to start")
	}
	peer, err := c.agentAt(shown, netip.Addr{})
	if err == nil && peer.Expired {
		err = errors.New("the certificate has ended")
	}
	return peer.Agent, peer.Expires, err
}

// onEnrolment has everything go by an enrolment that was folded.
func (c *Coordinator) onEnrolment(e *pb.Enrolment) {
	c.fleet.Enrolled(e)
	if c.authorities == nil {
		return
	}
	c.guests.recheck(e)
	c.nats.Recheck(e.GetId())
}
