package access

import (
	"container/list"
	"time"

	"golang.org/x/time/rate"
)

// buckets are token buckets, as many as fit. When all are in use a new one is refused: to forget one that is not
// full again would give its owner a new burst, and whoever can think of many names could do that to another's.
type buckets[K comparable] struct {
	max    int
	byKey  map[K]*list.Element
	recent list.List // of *bucket[K], the one that was used last in front
}

type bucket[K comparable] struct {
	key     K
	limiter *rate.Limiter
}

func newBuckets[K comparable](most int) *buckets[K] {
	return &buckets[K]{max: most, byKey: map[K]*list.Element{}}
}

// find is the bucket of a key, and a new one where there is none and room for it; nil where there is none.
func (b *buckets[K]) find(now time.Time, key K, fresh func() *rate.Limiter) *rate.Limiter {
	if found, ok := b.byKey[key]; ok {
		b.recent.MoveToFront(found)
		return found.Value.(*bucket[K]).limiter
	}
	if !b.room(now) {
		return nil
	}
	limiter := fresh()
	b.byKey[key] = b.recent.PushFront(&bucket[K]{key, limiter})
	return limiter
}

// room makes room for one more, if the bucket that was used least of late is full again.
func (b *buckets[K]) room(now time.Time) bool {
	if len(b.byKey) < b.max {
		return true
	}
	oldest := b.recent.Back().Value.(*bucket[K])
	if oldest.limiter.TokensAt(now) < float64(oldest.limiter.Burst()) {
		return false
	}
	b.recent.Remove(b.recent.Back())
	delete(b.byKey, oldest.key)
	return true
}

// wait is how long a bucket needs until it holds n; 0 if it does. more says that it never will.
func wait(limiter *rate.Limiter, now time.Time, n int) (in time.Duration, never bool) {
	missing := float64(n) - limiter.TokensAt(now)
	switch {
	case missing <= 0:
		return 0, false
	case n > limiter.Burst(), limiter.Limit() == 0:
		return 0, true
	}
	return max(time.Duration(missing/float64(limiter.Limit())*float64(time.Second)), time.Millisecond), false
}
