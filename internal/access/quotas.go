package access

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// The defaults of pb.Quota.
	defaultBurst, defaultHourly, defaultAgents = 100, 36_000, 10_000
	// The defaults of a target's budget, in jobs: what ten thousand agents would do at their own 50 and 5 a second.
	defaultTargetBurst, defaultTargetRate = 500_000, 50_000
	// networkShare is how much more a network has than one address.
	networkShare = 4
	// maxTargets bounds the targets that are counted.
	maxTargets = 1 << 16
)

// Quotas says how much may be asked: by each token, and of each target, whoever asks. It is safe for concurrent use.
type Quotas struct {
	burst, targets int
	perSecond      float64

	mu       sync.Mutex
	byToken  *buckets[string]
	byTarget *buckets[Target]
}

// TargetBudget bounds how many jobs look at one target, over all users and agents.
type TargetBudget struct {
	// Burst is the number of jobs at once. Default: 500,000.
	Burst int
	// PerSecond is the number of jobs a second in the long run. Default: 50,000.
	PerSecond float64
	// Targets is the number of targets that are counted at once. Default: 65,536.
	Targets int
}

// NewQuotas returns quotas of which nothing is used.
func NewQuotas(b TargetBudget) *Quotas {
	q := &Quotas{burst: defaultTargetBurst, perSecond: defaultTargetRate, targets: maxTargets}
	if b.Burst > 0 {
		q.burst = b.Burst
	}
	if b.PerSecond > 0 {
		q.perSecond = b.PerSecond
	}
	if b.Targets > 0 {
		q.targets = b.Targets
	}
	q.byToken, q.byTarget = newBuckets[string](MaxTokens), newBuckets[Target](q.targets)
	return q
}

// Ask is a measurement that somebody wants.
type Ask struct {
	// Caller is who wants it.
	Caller Caller
	// Targets are whom it looks at.
	Targets []Target
	// Agents is how many look.
	Agents int
}

// Exceeded is an error that says what there is not enough of.
type Exceeded struct {
	// Subject is whose limit it is: "token:ID" or "target:192.0.2.1".
	Subject string
	// Description says it in words.
	Description string
	// RetryAfter is when it may go. 0: as it is, it never will.
	RetryAfter time.Duration
}

// Error is the description.
func (e *Exceeded) Error() string { return e.Description }

// Admit takes what a measurement needs of every quota, or says which of them has not enough and takes nothing of any.
func (q *Quotas) Admit(now time.Time, a Ask) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	var needs []need
	if t := a.Caller.Token; t != nil && a.Caller.Scope != pb.Scope_SCOPE_ADMIN {
		own, err := q.token(now, t, a.Agents)
		if err != nil {
			return err
		}
		needs = append(needs, own)
	}
	for _, target := range a.Targets {
		n, err := q.target(now, target, a.Agents)
		if err != nil {
			return err
		}
		needs = append(needs, n)
	}
	for _, n := range needs {
		n.limiter.AllowN(now, n.n)
	}
	return nil
}

// Charge takes what a measurement needs that another coordinator has admitted: it may be more than there is, and is owed
// then. token is the token that it counts against; nil is none.
func (q *Quotas) Charge(now time.Time, token *pb.Token, targets []Target, agents int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	take := func(l *rate.Limiter, n int) {
		if l != nil {
			l.ReserveN(now, min(n, l.Burst()))
		}
	}
	if token != nil && token.GetApi().GetScope() != pb.Scope_SCOPE_ADMIN {
		take(q.ofToken(now, token), 1)
	}
	for _, t := range targets {
		l, _, _ := q.ofTarget(now, t)
		take(l, agents)
	}
}

// need is what is to be taken of a bucket that has it.
type need struct {
	limiter *rate.Limiter
	n       int
}

// token looks at the quota of a token.
func (q *Quotas) token(now time.Time, t *pb.Token, agents int) (need, error) {
	quota, subject := t.GetApi().GetQuota(), "token:"+t.GetId()
	if most := or(int(quota.GetAgents()), defaultAgents); agents > most {
		return need{}, &Exceeded{subject, fmt.Sprintf("the token %s allows %d agents in a measurement, and this one asks %d; lower the limit", t.GetId(), most, agents), 0}
	}
	burst, hourly := rates(quota)
	limiter := q.ofToken(now, t)
	if limiter == nil {
		return need{}, &Exceeded{subject, "more tokens are in use than can be counted; try again later", time.Minute}
	}
	if in, never := wait(limiter, now, 1); in > 0 || never {
		return need{}, &Exceeded{subject, fmt.Sprintf("the token %s allows %d measurements at once and %d an hour", t.GetId(), burst, hourly), in}
	}
	return need{limiter, 1}, nil
}

// rates are how many measurements a quota allows at once, and an hour.
func rates(q *pb.Quota) (burst, hourly int) {
	return or(int(q.GetBurst()), defaultBurst), or(int(q.GetHourly()), defaultHourly)
}

// ofToken is what counts for a token; nil if it cannot be counted.
func (q *Quotas) ofToken(now time.Time, t *pb.Token) *rate.Limiter {
	burst, hourly := rates(t.GetApi().GetQuota())
	return q.byToken.find(now, t.GetId(), func() *rate.Limiter {
		return rate.NewLimiter(rate.Limit(float64(hourly)/time.Hour.Seconds()), burst)
	})
}

// ofTarget is what counts for a target, nil if it cannot be counted, and what it allows.
func (q *Quotas) ofTarget(now time.Time, t Target) (limiter *rate.Limiter, burst int, perSecond float64) {
	burst, perSecond = q.burst, q.perSecond
	if t.isNetwork() {
		burst, perSecond = burst*networkShare, perSecond*networkShare
	}
	return q.byTarget.find(now, t, func() *rate.Limiter { return rate.NewLimiter(rate.Limit(perSecond), burst) }), burst, perSecond
}

// target looks at the budget of a target.
func (q *Quotas) target(now time.Time, t Target, jobs int) (need, error) {
	subject := "target:" + t.String()
	limiter, burst, perSecond := q.ofTarget(now, t)
	if limiter == nil {
		return need{}, &Exceeded{subject, "more targets are measured now than can be counted; try again later", time.Minute}
	}
	in, never := wait(limiter, now, jobs)
	if never {
		return need{}, &Exceeded{subject, fmt.Sprintf("%s may be looked at by %d jobs at once, of all users together, and this measurement has %d; lower the limit", t, burst, jobs), 0}
	}
	if in > 0 {
		return need{}, &Exceeded{subject, fmt.Sprintf("%s may be looked at by %d jobs at once and %v a second, of all users together", t, burst, perSecond), in}
	}
	return need{limiter, jobs}, nil
}

// or is n, or what is meant by its zero.
func or(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}
