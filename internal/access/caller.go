// Package access is who may come in and how much he may ask: who calls, the tokens of clients and of agents that
// are to enrol, and the quotas of tokens and targets.
package access

import (
	"context"
	"net/netip"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Caller is who calls, as the connection and the call prove it. Its zero value is a stranger.
type Caller struct {
	// Agent is the name of the agent whose certificate the connection shows, by a key that is enrolled and not
	// revoked. Default: it is none.
	Agent string
	// Key is SHA-256 of the SubjectPublicKeyInfo of that certificate.
	Key []byte
	// Expires is when that certificate ends.
	Expires time.Time
	// Expired says that the certificate has ended: the agent may renew it and do nothing else.
	Expired bool
	// Scope is what the caller's token allows. Without TLS everybody has SCOPE_ADMIN.
	Scope pb.Scope
	// Token is the client's token, without its hash. Default: the caller has none.
	Token *pb.Token
	// Address is where the caller connects from.
	Address netip.Addr
}

type callerKey struct{}

// NewContext returns a context that knows the caller.
func NewContext(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// FromContext is who calls; a stranger, where nobody said.
func FromContext(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}
