package journal

import (
	"time"

	"go.etcd.io/bbolt"
)

var keyClock = []byte("clock") // in bucketMeta → time.Time

// Clock is the newest time that [Journal.RaiseClock] was told of; zero: none. The machine's own clock was not
// behind it then.
func (j *Journal) Clock() (at time.Time, err error) {
	err = j.read(func(root *bbolt.Bucket) error {
		_, err := get(root.Bucket(bucketMeta), keyClock, &at)
		return err
	})
	return at, err
}

// RaiseClock remembers a time at which something was signed that was verified; it never goes back.
func (j *Journal) RaiseClock(at time.Time) error {
	if newest, err := j.Clock(); err != nil || !at.After(newest) { // most orders are no news: they must not cost a commit
		return err
	}
	return j.write(func(root *bbolt.Bucket) error {
		var newest time.Time
		meta := root.Bucket(bucketMeta)
		if _, err := get(meta, keyClock, &newest); err != nil || !at.After(newest) {
			return err
		}
		return put(meta, keyClock, at.UTC())
	})
}
