package journal

import (
	"encoding/binary"
	"time"

	"go.etcd.io/bbolt"

	"chandler/agent/logon"
	"chandler/events"
	"chandler/events/order"
)

// Job is what the agent knows of one job.
type Job struct {
	Offer events.JobOffer `json:"offer"`
	// Trace is that of the deployment (a W3C traceparent), which every status carries on; it may be empty.
	Trace string `json:"trace,omitempty"`
	// Last is the newest transition; its zero value means that none was recorded yet.
	Last events.JobStatus `json:"last"`
	// Started is the attempt whose program was about to be started when this was synced, and Run the
	// directory of its supervisor. Started == Offer.Attempt means: never start it again, find out what came
	// of it.
	Started int    `json:"started,omitempty"`
	Run     string `json:"run,omitempty"`
	// Passed are the order's steps that the job has behind it, none once it has ended: a retry begins anew. What is said
	// here of a program that was started is of the step after them, or of the order's own.
	Passed int `json:"passed,omitempty"`
	// Ran: the program of some attempt was started; only then does the end enter the program's history.
	Ran bool `json:"ran,omitempty"`
	// Acted: the order's own program, not only a step, was started in an attempt that is over.
	Acted bool `json:"acted,omitempty"`
	// Work is what an attempt that was started needs to be followed to its end without asking anybody; nil once the job has
	// ended.
	Work *Work `json:"work,omitempty"`
	// Boot is the boot id under which the program asked for a restart; Hard: nothing else may start before.
	Boot string `json:"boot,omitempty"`
	Hard bool   `json:"hard,omitempty"`
	// SawUser: somebody was logged on since the job was opened; a job that is assigned to a logoff waits for it.
	SawUser bool      `json:"saw_user,omitempty"`
	Opened  time.Time `json:"opened"`
	// Heard is when the agent was first there at or after the job's time (see timing.Decide); zero: when the job was opened.
	Heard time.Time `json:"heard,omitzero"`

	// Occurrence says which one of a standing order the job is; nil: it is not one that this agent opened.
	Occurrence *Occurrence `json:"occurrence,omitempty"`
	// Openings is what the job of a standing order, which runs nothing, has opened; nil of every other job.
	Openings *Openings `json:"openings,omitempty"`
	// AskedBy is the local user who started the job, by name; empty: its time had come.
	AskedBy string `json:"asked_by,omitempty"`
}

// Occurrence is what an occurrence of a standing order is of.
type Occurrence struct {
	Assignment int `json:"assignment"` // index; -1: a local user asked for it
}

// Openings is what a standing order's own job has opened so far.
type Openings struct {
	Newest map[int]int64 `json:"newest,omitempty"` // by assignment, the highest number that was opened or passed over
	Last   int64         `json:"last,omitempty"`   // the highest number that was opened; 0: none
	At     time.Time     `json:"at,omitzero"`      // when, by this machine's clock, the newest was
	Logon  time.Time     `json:"logon,omitzero"`   // of the newest session that an occurrence was opened for
}

// Work is the order and the program of a started attempt, as they were verified before the start.
type Work struct {
	Order   order.Order    `json:"order"`
	Step    *order.Step    `json:"step,omitempty"` // whose program it is; nil: the order's own
	Program events.Program `json:"program"`
	// Supersedes are what the program's package takes the place of.
	Supersedes []events.Supersede `json:"supersedes,omitempty"`
	// Rules tell whether the program has done its work; with Gone, by finding the product no more.
	Rules []events.Detect `json:"rules,omitempty"`
	Gone  bool            `json:"gone,omitempty"`
	// Session is that of the user that the program runs as; nil for administrative programs.
	Session *logon.Session `json:"session,omitempty"`
	Reader  string         `json:"reader,omitempty"`  // who read the content
	Network string         `json:"network,omitempty"` // who the program's references are read by
	Slots   []string       `json:"slots,omitempty"`   // groups of programs that exclude each other
	// Accesses to external sources before the start, of the content and the references.
	Accesses []events.Access `json:"accesses,omitempty"`
}

// Part is the step, or the order's own program in the same words.
func (w Work) Part() order.Step {
	if w.Step != nil {
		return *w.Step
	}
	o := w.Order
	return order.Step{Package: o.Package, Version: o.Version, Manifest: o.Manifest, Program: o.Program, Run: o.Run, InstallationAccount: o.InstallationAccount, Resources: o.Resources}
}

// Ended says whether nothing more will happen to the job by itself.
func (j Job) Ended() bool { return j.Last.State.Terminal() }

// Entry is a status on its way to the broker.
type Entry struct {
	Sequence uint64           `json:"-"`
	Status   events.JobStatus `json:"status"`
	Trace    string           `json:"trace,omitempty"` // of the job
	Acked    time.Time        `json:"acked,omitzero"`  // when the broker said that it is stored
	// Retold: said once more because it may have been lost or passed over; the broker must not take it for
	// a duplicate.
	Retold bool `json:"retold,omitempty"`
}

// Job by its id; ok is false where the agent never had it.
func (j *Journal) Job(id string) (job Job, ok bool, err error) {
	err = j.read(func(root *bbolt.Bucket) error {
		ok, err = get(root.Bucket(bucketJobs), []byte(id), &job)
		return err
	})
	return job, ok, err
}

// Jobs calls each for every job, ended ones too, in order of id.
func (j *Journal) Jobs(each func(Job) error) error {
	return j.read(func(root *bbolt.Bucket) error {
		return root.Bucket(bucketJobs).ForEach(func(key, _ []byte) error {
			var job Job
			if _, err := get(root.Bucket(bucketJobs), key, &job); err != nil {
				return err
			}
			return each(job)
		})
	})
}

// Statuses calls each for the last transition of every job, as Jobs does.
func (j *Journal) Statuses(each func(events.JobStatus)) error {
	return j.read(func(root *bbolt.Bucket) error {
		b := root.Bucket(bucketJobs)
		return b.ForEach(func(key, _ []byte) error {
			var job struct {
				Last events.JobStatus `json:"last"`
			}
			_, err := get(b, key, &job)
			if err == nil {
				each(job.Last)
			}
			return err
		})
	})
}

// Keep records jobs without a transition (an offer taken in, a start about to happen), all or none.
func (j *Journal) Keep(jobs ...Job) error {
	return j.write(func(root *bbolt.Bucket) error {
		for _, job := range jobs {
			if err := put(root.Bucket(bucketJobs), []byte(job.Offer.Job), job); err != nil {
				return err
			}
		}
		return nil
	})
}

// Advance records a transition: the job with its new last status, the status in the outbox, and, where
// the program ran and the job has ended, the program's history; all or nothing.
func (j *Journal) Advance(job Job) error {
	kept := job
	if kept.Ended() {
		kept.Work = nil // most of what a job takes, and ended ones are many
	}
	return j.write(func(root *bbolt.Bucket) error {
		if err := put(root.Bucket(bucketJobs), []byte(job.Offer.Job), kept); err != nil {
			return err
		}
		if err := remember(root, job, job.Last.State); err != nil {
			return err
		}
		return enqueue(root, Entry{Status: job.Last, Trace: job.Trace})
	})
}

func enqueue(root *bbolt.Bucket, e Entry) error {
	b := root.Bucket(bucketOutbox)
	n, err := b.NextSequence()
	if err != nil {
		return err
	}
	return put(b, sequenceKey(n), e)
}

// Unsent lists up to limit statuses after the given sequence that the broker has not acknowledged, in the
// order in which they were recorded.
func (j *Journal) Unsent(after uint64, limit int) (list []Entry, err error) {
	err = j.read(func(root *bbolt.Bucket) error {
		c := root.Bucket(bucketOutbox).Cursor()
		for k, _ := c.Seek(sequenceKey(after + 1)); k != nil && len(list) < limit; k, _ = c.Next() {
			var e Entry
			if _, err := get(root.Bucket(bucketOutbox), k, &e); err != nil {
				return err
			}
			if e.Acked.IsZero() {
				e.Sequence = binary.BigEndian.Uint64(k)
				list = append(list, e)
			}
		}
		return nil
	})
	return list, err
}

// Acknowledge notes that the broker has stored these statuses. They are kept a while longer, see Forget.
// With them the position is moved, as MovePosition does.
func (j *Journal) Acknowledge(sequences []uint64, at time.Time, move func(*Position)) error {
	if len(sequences) == 0 {
		return nil
	}
	return j.write(func(root *bbolt.Bucket) error {
		b := root.Bucket(bucketOutbox)
		for _, n := range sequences {
			var e Entry
			ok, err := get(b, sequenceKey(n), &e)
			if err != nil {
				return err
			}
			if !ok {
				continue // forgotten meanwhile
			}
			e.Acked = at
			if err := put(b, sequenceKey(n), e); err != nil {
				return err
			}
		}
		return movePosition(root, move)
	})
}

// Resend makes every kept status that was acknowledged unsent again, for a broker that may not be the one that did so. It is
// told under its id as before: what the broker has is a copy.
func (j *Journal) Resend() error {
	unacknowledge := func(root *bbolt.Bucket, change bool) (found bool, err error) {
		b := root.Bucket(bucketOutbox)
		c := b.Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			var e Entry
			if _, err := get(b, k, &e); err != nil {
				return found, err
			}
			if e.Acked.IsZero() {
				continue
			}
			if found = true; !change {
				return found, nil
			}
			e.Acked = time.Time{}
			if err := put(b, append([]byte(nil), k...), e); err != nil {
				return found, err
			}
		}
		return found, nil
	}
	// Most have nothing to tell again, and a whole fleet that comes back must not wait for its commits.
	found := false
	err := j.read(func(root *bbolt.Bucket) (err error) {
		found, err = unacknowledge(root, false)
		return err
	})
	if err != nil || !found {
		return err
	}
	return j.write(func(root *bbolt.Bucket) error {
		_, err := unacknowledge(root, true)
		return err
	})
}

// Retell makes every kept status unsent again; with all, also the last status of every job that the
// outbox no longer holds. It is for a broker that may have lost what it acknowledged.
func (j *Journal) Retell(all bool) error {
	return j.write(func(root *bbolt.Bucket) error {
		b := root.Bucket(bucketOutbox)
		held := map[string]bool{}
		c := b.Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			var e Entry
			if _, err := get(b, k, &e); err != nil {
				return err
			}
			held[e.Status.StatusID()] = true
			if e.Acked.IsZero() {
				continue
			}
			e.Acked, e.Retold = time.Time{}, true
			if err := put(b, append([]byte(nil), k...), e); err != nil {
				return err
			}
		}
		if !all {
			return nil
		}
		return root.Bucket(bucketJobs).ForEach(func(key, _ []byte) error {
			var job Job
			if _, err := get(root.Bucket(bucketJobs), key, &job); err != nil {
				return err
			}
			if job.Last.Transition == 0 || held[job.Last.StatusID()] {
				return nil
			}
			return enqueue(root, Entry{Status: job.Last, Trace: job.Trace, Retold: true})
		})
	})
}

// RetellJob queues the last status of one job once more.
func (j *Journal) RetellJob(id string) error {
	return j.write(func(root *bbolt.Bucket) error {
		var job Job
		ok, err := get(root.Bucket(bucketJobs), []byte(id), &job)
		if err != nil || !ok || job.Last.Transition == 0 {
			return err
		}
		return enqueue(root, Entry{Status: job.Last, Trace: job.Trace, Retold: true})
	})
}
