package coordinator

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/access"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// paces are how often agents may do what makes work for the disk, and do what few have a reason for.
type paces struct {
	registering *access.Pace[string] // by agent
	certifying  *access.Pace[string] // by agent, or by token
	ousting     *access.Pace[string] // by agent: a new process in place of one that is connected
}

const (
	// registerBurst and registerRate are how often an agent may register at once, and a second: each is a write.
	registerBurst, registerRate = 200, 2
	// certifyBurst and certifyLife are how many certificates an agent may get at once, and in the time that one is good:
	// each is an entry of the log, which others' entries have to make room for some day.
	certifyBurst, certifyLife = 20, 1000
	// oustBurst and oustRate are how often a new process may come in place of one that is connected, at once and a
	// second, before it looks as if there were two.
	oustBurst, oustRate = 2, 1. / 300
	// maxPaces bounds whom each of that is counted of; the rest count as one.
	maxPaces = 1 << 16
)

// newPaces returns paces, for certificates that are good so long.
func newPaces(life time.Duration) paces {
	return paces{
		registering: access.NewPace[string](registerBurst, registerRate, maxPaces),
		certifying:  access.NewPace[string](certifyBurst, certifyLife/life.Seconds(), maxPaces),
		ousting:     access.NewPace[string](oustBurst, oustRate, maxPaces),
	}
}

// unhurried says when to come again to who does something too often.
func (c *Coordinator) unhurried(ctx context.Context, pace *access.Pace[string], who, does string) error {
	in := pace.Take(time.Now(), who)
	if in == 0 {
		return nil
	}
	c.audit(&pb.AuditEvent{
		Kind: pb.AuditKind_AUDIT_KIND_FLOOD, Agent: access.FromContext(ctx).Agent, Address: callerAddress(ctx),
		Detail: clip(who) + " " + does + " more often than it may, and has to wait",
	})
	return retryLater(status.Newf(codes.ResourceExhausted, "%.63q %s too often", who, does), in)
}
