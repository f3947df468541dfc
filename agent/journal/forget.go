package journal

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// MaxOccurrences is how many ended occurrences of one standing order are remembered: some recur every few minutes.
const MaxOccurrences = 200

// Forget removes what is no longer needed: statuses acknowledged before ackedBefore (zero: none; see
// report.Reporter.ForgetBefore), jobs that ended before endedBefore or that are
// older occurrences of a standing order than its newest [MaxOccurrences], and orders no job names.
func (j *Journal) Forget(ackedBefore, endedBefore time.Time) error {
	return j.write(func(root *bbolt.Bucket) error {
		if err := deleteWhere(root.Bucket(bucketOutbox), func(e Entry) bool { return !e.Acked.IsZero() && e.Acked.Before(ackedBefore) }); err != nil {
			return fmt.Errorf("forget statuses: %w", err)
		}
		needed := map[string]bool{}
		err := deleteWhere(root.Bucket(bucketJobs), func(job Job) bool {
			old := job.Ended() && job.Last.At.Before(endedBefore)
			needed[job.Offer.Order] = needed[job.Offer.Order] || !old
			return old
		})
		if err != nil {
			return fmt.Errorf("forget jobs: %w", err)
		}
		if err := forgetOccurrences(root.Bucket(bucketJobs)); err != nil {
			return fmt.Errorf("forget occurrences: %w", err)
		}
		orders := root.Bucket(bucketOrders)
		c := orders.Cursor()
		var unused [][]byte
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			if !needed[string(k)] {
				unused = append(unused, append([]byte(nil), k...))
			}
		}
		return deleteKeys(orders, unused)
	})
}

// forgetOccurrences removes the oldest ended occurrences of standing orders that have too many. Of each order one is kept
// whose own program ran, for the order that takes it back.
func forgetOccurrences(b *bbolt.Bucket) error {
	type standing struct {
		deployment string
		revision   uint64
	}
	type past struct {
		key        []byte
		occurrence int64
		acted      bool
	}
	all := map[standing][]past{}
	err := b.ForEach(func(key, _ []byte) error {
		var job Job
		if _, err := get(b, key, &job); err != nil {
			return err
		}
		if o := job.Offer; job.Occurrence != nil && job.Ended() {
			of := standing{o.Deployment, o.Revision}
			all[of] = append(all[of], past{slices.Clone(key), o.Occurrence, job.Acted})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, list := range all {
		slices.SortFunc(list, func(x, y past) int { return cmp.Compare(y.occurrence, x.occurrence) })
		acted := false
		for i, p := range list {
			if i < MaxOccurrences || p.acted && !acted {
				acted = acted || p.acted
				continue
			}
			if err := b.Delete(p.key); err != nil {
				return err
			}
		}
	}
	return nil
}

// deleteWhere collects first and deletes afterwards: bbolt's cursors do not stand deletion while they go.
func deleteWhere[T any](b *bbolt.Bucket, gone func(T) bool) error {
	var keys [][]byte
	c := b.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		var v T
		if _, err := get(b, k, &v); err != nil {
			return err
		}
		if gone(v) {
			keys = append(keys, append([]byte(nil), k...))
		}
	}
	return deleteKeys(b, keys)
}

func deleteKeys(b *bbolt.Bucket, keys [][]byte) error {
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
