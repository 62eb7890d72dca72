package cluster

import (
	"bytes"
	"crypto/sha256"
	"slices"
)

// Rank is the place of a name among names for a key: 0 owns it, 1 is next should that one be gone, and so on. It depends
// on nothing else, not even the order of the names, so all who know the same names agree. Each name owns as many keys as
// any other, and when one goes only its own keys change their owner (rendezvous hashing). A name that is not among them
// ranks after all.
func Rank(key, name string, names []string) int {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if !slices.Contains(names, name) {
		return len(names)
	}
	rank, own := 0, weight(key, name)
	for _, other := range names {
		// Equal weights will not be seen.
		if bytes.Compare(weight(key, other), own) > 0 {
			rank++
		}
	}
	return rank
}

// weight is that of a name for a key: the heaviest is the owner. A name has no zero byte.
func weight(key, name string) []byte {
	sum := sha256.Sum256([]byte(name + "\x00" + key))
	return sum[:]
}
