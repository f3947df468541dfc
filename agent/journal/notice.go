package journal

import (
	"encoding/binary"

	"go.etcd.io/bbolt"

	"chandler/events"
)

// Notice is what the agent did with an account of the machine, or by one that it was lent, on its way to the broker.
type Notice struct {
	Sequence uint64             `json:"-"`
	Type     string             `json:"type"` // name of the event's type
	Note     events.AccountNote `json:"note,omitzero"`
	Use      *events.LeaseUse   `json:"use,omitempty"` // of events.CredentialUsed, instead of Note
}

// maxNotices bounds what is kept while there is no broker; the oldest go first.
const maxNotices = 10_000

// Notify queues a notice.
func (j *Journal) Notify(n Notice) error {
	return j.write(func(root *bbolt.Bucket) error {
		b := root.Bucket(bucketNotices)
		next, err := b.NextSequence()
		if err != nil {
			return err
		}
		if next > maxNotices {
			if err := b.Delete(sequenceKey(next - maxNotices)); err != nil {
				return err
			}
		}
		return put(b, sequenceKey(next), n)
	})
}

// Notices lists up to limit notices, oldest first.
func (j *Journal) Notices(limit int) (list []Notice, err error) {
	err = j.read(func(root *bbolt.Bucket) error {
		b := root.Bucket(bucketNotices)
		c := b.Cursor()
		for k, _ := c.First(); k != nil && len(list) < limit; k, _ = c.Next() {
			n := Notice{Sequence: binary.BigEndian.Uint64(k)}
			if _, err := get(b, k, &n); err != nil {
				return err
			}
			list = append(list, n)
		}
		return nil
	})
	return list, err
}

// Told removes a notice that is stored.
func (j *Journal) Told(sequence uint64) error {
	return j.write(func(root *bbolt.Bucket) error { return root.Bucket(bucketNotices).Delete(sequenceKey(sequence)) })
}
