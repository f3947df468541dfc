package journal

import (
	"slices"
	"sync"

	"go.etcd.io/bbolt"
)

// maxShared bounds the changes of one commit.
const maxShared = 1000

// commits lets concurrent changes share a commit: what comes while one is being synced waits for the next, together with
// all others that come meanwhile. Nobody waits for company, so that a lone change costs one sync and no more.
type commits struct {
	db *bbolt.DB

	mu      sync.Mutex
	busy    bool // somebody commits
	waiting []*change
}

// change is what one caller wants to write.
type change struct {
	do   func(*bbolt.Tx) error
	err  error
	turn chan bool // true: the caller is to commit for all who wait; false: it was done, err says how
}

// write commits do, which may run more than once. The change is synced when it returns nil, and not there at all
// otherwise.
func (c *commits) write(do func(*bbolt.Tx) error) error {
	mine := &change{do: do, turn: make(chan bool, 1)}
	c.mu.Lock()
	c.waiting = append(c.waiting, mine)
	if c.busy {
		c.mu.Unlock()
		if lead := <-mine.turn; !lead {
			return mine.err
		}
		c.mu.Lock()
	}
	c.busy = true
	// The caller's own change is the first that waits.
	n := min(len(c.waiting), maxShared)
	shared := slices.Clone(c.waiting[:n])
	c.waiting = slices.Delete(c.waiting, 0, n)
	c.mu.Unlock()

	c.commit(shared)

	c.mu.Lock()
	if c.busy = len(c.waiting) > 0; c.busy {
		c.waiting[0].turn <- true
	}
	c.mu.Unlock()
	for _, other := range shared {
		if other != mine {
			other.turn <- false
		}
	}
	return mine.err
}

// commit writes all changes at once, but those that fail. What failed in company is tried alone: what others changed may
// have been why.
func (c *commits) commit(shared []*change) {
	left := slices.Clone(shared)
	for len(left) > 0 {
		failed := -1
		err := c.db.Update(func(tx *bbolt.Tx) error {
			for i, one := range left {
				if err := one.do(tx); err != nil {
					failed = i
					return err
				}
			}
			return nil
		})
		if failed < 0 {
			for _, one := range left {
				one.err = err
			}
			return
		}
		alone := left[failed]
		left = slices.Delete(left, failed, failed+1)
		if alone.err = err; len(left) > 0 {
			alone.err = c.db.Update(alone.do)
		}
	}
}
