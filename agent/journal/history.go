package journal

import (
	"go.etcd.io/bbolt"

	"chandler/events"
	"chandler/events/manifest"
)

// ProgramName names a program for the history; User is empty unless it runs for every user.
type ProgramName struct{ Package, Version, Program, User string }

func (p ProgramName) key() []byte {
	key := p.Package + "\x00" + p.Version + "\x00" + p.Program
	if p.User != "" {
		key += "\x00" + p.User
	}
	return []byte(key)
}

func (p ProgramName) of(program string) ProgramName {
	p.Program = program
	return p
}

// LastRun is how a program of a package ended here the last time: Succeeded, Failed, or "" where it never
// ran, or was undone since. The history goes by package, version and program, not by deployment
// (domain-facts §1.2): another version is another package, as it was in the original. What runs once for
// every user has a history for each; what ran as the step of another program has the same as if it had run alone.
func (j *Journal) LastRun(p ProgramName) (state events.State, err error) {
	err = j.read(func(root *bbolt.Bucket) error {
		state = events.State(root.Bucket(bucketHistory).Get(p.key()))
		return nil
	})
	return state, err
}

// Taken says that a program succeeded here whose package takes the place of others.
type Taken struct {
	Package    string             `json:"package"`
	Version    string             `json:"version"`
	Supersedes []events.Supersede `json:"supersedes"`
}

func (t Taken) takes(pkg, version string) bool {
	return manifest.Supersedes(events.Manifest{Package: t.Package, Version: t.Version, Supersedes: t.Supersedes}, pkg, version)
}

// SupersededBy is what took the place of a package here; ok is false where nothing did, or was undone since.
func (j *Journal) SupersededBy(pkg, version string) (by Taken, ok bool, err error) {
	err = j.read(func(root *bbolt.Bucket) error {
		b := root.Bucket(bucketTaken)
		c := b.Cursor()
		for k, _ := c.First(); k != nil && !ok; k, _ = c.Next() {
			by = Taken{}
			if _, err := get(b, k, &by); err != nil {
				return err
			}
			ok = by.takes(pkg, version)
		}
		return nil
	})
	return by, ok, err
}

// Pass records that the step of a job that is under way is over: it succeeded, which enters its program's history if it
// ran, or nothing was to be done. All or nothing; the job is given as it goes on.
func (j *Journal) Pass(job Job) (Job, error) {
	next := job
	next.Passed++
	next.Started, next.Run, next.Ran, next.Work, next.Boot, next.Hard = 0, "", false, nil, "", false
	err := j.write(func(root *bbolt.Bucket) error {
		if job.Work != nil && job.Work.Step != nil {
			if err := remember(root, job, events.Succeeded); err != nil {
				return err
			}
		}
		return put(root.Bucket(bucketJobs), []byte(job.Offer.Job), next)
	})
	return next, err
}

// Found notes what follows from a program's work, which detection found done without a run: as after one that
// succeeded, but that its history says nothing of a run.
func (j *Journal) Found(name ProgramName, p events.Program, supersedes []events.Supersede) error {
	if p.Undoes == "" && len(supersedes) == 0 {
		return nil
	}
	return j.write(func(root *bbolt.Bucket) error { return follow(root, name, p, supersedes) })
}

// remember enters the end of a program that ran into its history.
func remember(root *bbolt.Bucket, job Job, state events.State) error {
	if !job.Ran || state != events.Succeeded && state != events.Failed {
		return nil
	}
	s := job.Last
	name := ProgramName{s.Package, s.Version, s.Program, s.User}
	if job.Work != nil && job.Work.Step != nil { // of which every user of the machine has the benefit
		step := job.Work.Step
		name = ProgramName{Package: step.Package, Version: step.Version, Program: step.Program}
	}
	history := root.Bucket(bucketHistory)
	if err := history.Put(name.key(), []byte(state)); err != nil || state != events.Succeeded || job.Work == nil {
		return err
	}
	w := job.Work
	if w.Program.Repairs != "" {
		if err := history.Put(name.of(w.Program.Repairs).key(), []byte(state)); err != nil {
			return err
		}
	}
	if r := w.Order.Rolls; r != nil && w.Step == nil {
		if err := undone(root, ProgramName{r.Package, r.Version, r.Program, s.User}); err != nil {
			return err
		}
	}
	return follow(root, name, w.Program, w.Supersedes)
}

// follow notes what follows from a program's success: one that undid another makes the other one never have run; any
// other takes the place of what its package supersedes.
func follow(root *bbolt.Bucket, name ProgramName, p events.Program, supersedes []events.Supersede) error {
	switch {
	case p.Undoes != "":
		return undone(root, name.of(p.Undoes))
	case len(supersedes) == 0:
		return nil
	case p.Repairs != "":
		name = name.of(p.Repairs)
	}
	by := Taken{Package: name.Package, Version: name.Version, Supersedes: supersedes}
	b := root.Bucket(bucketTaken)
	// What this one takes the place of takes that of no other any more.
	if err := deleteWhere(b, func(other Taken) bool { return by.takes(other.Package, other.Version) }); err != nil {
		return err
	}
	return put(b, name.key(), by)
}

// undone makes a program never have run.
func undone(root *bbolt.Bucket, name ProgramName) error {
	if err := root.Bucket(bucketHistory).Delete(name.key()); err != nil {
		return err
	}
	return root.Bucket(bucketTaken).Delete(name.key())
}
