package scheduling

import (
	"math/bits"
	"slices"
)

// idSet is a set of agents by their place in the fleet's roster. A fleet of 100,000 takes 12.5 KB for each
// set, where a map of ids would take megabytes.
type idSet []uint64

func (s idSet) has(i int) bool {
	return i>>6 < len(s) && s[i>>6]&(1<<(i&63)) != 0
}

// set returns s with i in it or not.
func (s idSet) set(i int, in bool) idSet {
	if !in {
		if i>>6 < len(s) {
			s[i>>6] &^= 1 << (i & 63)
		}
		return s
	}
	for i>>6 >= len(s) {
		s = append(s, 0)
	}
	s[i>>6] |= 1 << (i & 63)
	return s
}

func (s idSet) count() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// firstNotIn lists up to n members of s that are not in other, lowest first.
func (s idSet) firstNotIn(other idSet, n int) (found []int) {
	for i, w := range s {
		if i < len(other) {
			w &^= other[i]
		}
		for ; w != 0 && len(found) < n; w &= w - 1 {
			found = append(found, i<<6+bits.TrailingZeros64(w))
		}
	}
	return found
}

// without returns the members of s that are not in other, in a set of its own.
func (s idSet) without(other idSet) idSet {
	left := slices.Clone(s)
	for i := range min(len(left), len(other)) {
		left[i] &^= other[i]
	}
	return left
}

// or returns s with the members of other.
func (s idSet) or(other idSet) idSet {
	for i, w := range other {
		if i >= len(s) {
			return append(s, other[i:]...)
		}
		s[i] |= w
	}
	return s
}

// and returns the members of both, in a set of its own.
func (s idSet) and(other idSet) idSet {
	both := make(idSet, min(len(s), len(other)))
	for i := range both {
		both[i] = s[i] & other[i]
	}
	return both
}
