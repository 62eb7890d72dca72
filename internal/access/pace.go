package access

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// failureBurst and failureRate are how many bad tokens of one address are answered at once and a second.
	failureBurst, failureRate = 20, 1
	// maxFailing bounds the addresses that are counted; beyond it they count as one.
	maxFailing = 4096
)

// Pace is how often each of many may do something. It is safe for concurrent use.
type Pace[K comparable] struct {
	fresh func() *rate.Limiter

	mu     sync.Mutex
	byKey  *buckets[K]
	others *rate.Limiter
}

// NewPace returns a pace of so many at once, and so many a second in the long run, for each of at most so many keys;
// beyond those all others count as one.
func NewPace[K comparable](burst int, perSecond float64, keys int) *Pace[K] {
	fresh := func() *rate.Limiter { return rate.NewLimiter(rate.Limit(perSecond), burst) }
	return &Pace[K]{fresh: fresh, byKey: newBuckets[K](keys), others: fresh()}
}

// Take counts one more, and says how long its key has to wait for it; 0: it need not.
func (p *Pace[K]) Take(now time.Time, key K) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	limiter := p.byKey.find(now, key, p.fresh)
	if limiter == nil {
		limiter = p.others
	}
	in, _ := wait(limiter, now, 1)
	if in == 0 {
		limiter.AllowN(now, 1)
	}
	return in
}

// Failures counts bad tokens by where they come from (IPv6: by /64). It is safe for concurrent use.
type Failures struct{ pace *Pace[netip.Prefix] }

// NewFailures returns a count of nothing.
func NewFailures() *Failures {
	return &Failures{NewPace[netip.Prefix](failureBurst, failureRate, maxFailing)}
}

// Failed counts a bad token, and says how long its address should wait before the next; 0: it need not.
func (f *Failures) Failed(now time.Time, addr netip.Addr) time.Duration {
	bits := min(64, addr.BitLen())
	return f.pace.Take(now, netip.PrefixFrom(addr.WithZone(""), bits).Masked())
}
