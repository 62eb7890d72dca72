package probe

import (
	"container/list"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// The defaults of a Budget (docs/decisions.md, “A target's budget is counted twice”), and how much more often a
// DNS server may be asked: one of them answers for many names, and a query is one small packet.
const (
	defaultBurst     = 50
	defaultPerSecond = 5
	defaultTargets   = 4096
	queriesPerJob    = 10
	enumerationCost  = 5 // An enumeration is a job of up to 300 handshakes, 20 a second.
)

// Budget bounds how often each target is looked at from here, whoever asks: a token bucket for each
// address that sockets go to (IPv6 by /64) and for each host that jobs name. It may be shared by any
// number of Runs. Its zero value has the default limits.
type Budget struct {
	// Burst is the number of jobs that a target gets at once. Default: 50.
	Burst int
	// PerSecond is the number of jobs a second that it gets after that. Default: 5.
	PerSecond float64
	// Targets is the number of targets that are remembered. When all of them are in use, a new one is
	// refused: forgetting a bucket that is not full again would give its target a new burst. Default: 4096.
	Targets int
	// TotalBurst is the number of jobs that are done at once, for all targets together. 0: it is not bounded.
	TotalBurst int
	// TotalPerSecond is the number of jobs a second after that. It counts only with TotalBurst.
	TotalPerSecond float64

	mu      sync.Mutex
	buckets map[bucketKey]*list.Element
	recent  list.List // Of *bucket, the one that was used last in front.
	total   *rate.Limiter
}

// bucketKey is what a bucket is for: exactly one of its fields is set.
type bucketKey struct {
	host   string       // The host that a job names.
	target netip.Prefix // Where connections go.
	server netip.Prefix // Where queries go.
}

// bucket is what a target has left.
type bucket struct {
	key     bucketKey
	limiter *rate.Limiter
}

// admit takes a token from a bucket for a job that is about to begin, and one from what there is for all jobs. A flood
// for one target takes nothing away from the others.
func (b *Budget) admit(key bucketKey, cost int) error {
	if err := b.take(key, cost); err != nil || b == nil || b.TotalBurst == 0 {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.total == nil {
		b.total = rate.NewLimiter(rate.Limit(b.TotalPerSecond), b.TotalBurst)
	}
	if !b.total.Allow() {
		return fmt.Errorf("the agent does at most %d jobs at once and %v a second in all", b.TotalBurst, b.TotalPerSecond)
	}
	return nil
}

// price is the number of tokens that a job takes.
func price(spec *pb.Spec) int {
	if spec.GetTls().GetEnumerate() {
		return enumerationCost
	}
	return 1
}

// take takes tokens from a bucket, or says that there are none. A nil Budget has always one.
func (b *Budget) take(key bucketKey, n int) error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	found, ok := b.buckets[key]
	switch {
	case ok:
		b.recent.MoveToFront(found)
	case !b.room(now):
		return fmt.Errorf("the agent has looked at %d targets of late, as many as it can count", len(b.buckets))
	default:
		if b.buckets == nil {
			b.buckets = map[bucketKey]*list.Element{}
		}
		found = b.recent.PushFront(&bucket{key, b.limiter(key)})
		b.buckets[key] = found
	}
	if l := found.Value.(*bucket).limiter; !l.AllowN(now, min(n, l.Burst())) {
		return fmt.Errorf("the agent looks at %s at most %d times at once and %v times a second", key, l.Burst(), l.Limit())
	}
	return nil
}

// room makes room for a bucket, if the one that was used least of late is full again.
func (b *Budget) room(now time.Time) bool {
	if len(b.buckets) < or(b.Targets, defaultTargets) {
		return true
	}
	oldest := b.recent.Back().Value.(*bucket)
	if oldest.limiter.TokensAt(now) < float64(oldest.limiter.Burst()) {
		return false
	}
	b.recent.Remove(b.recent.Back())
	delete(b.buckets, oldest.key)
	return true
}

func (b *Budget) limiter(key bucketKey) *rate.Limiter {
	burst, perSecond := or(b.Burst, defaultBurst), or(b.PerSecond, defaultPerSecond)
	if key.server.IsValid() {
		burst, perSecond = burst*queriesPerJob, perSecond*queriesPerJob
	}
	return rate.NewLimiter(rate.Limit(perSecond), burst)
}

// or returns n, or what is meant by its zero.
func or[N int | float64](n, otherwise N) N {
	if n == 0 {
		return otherwise
	}
	return n
}

func (k bucketKey) String() string {
	switch {
	case k.host != "":
		return k.host
	case k.server.IsValid():
		return k.server.String()
	}
	return k.target.String()
}

// network is the part of an address that is one target: an IPv6 network has more addresses than could be
// counted, and gives them all to one host if it likes.
func network(ip netip.Addr) netip.Prefix {
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(ip, bits).Masked()
}
