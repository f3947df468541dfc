package checker

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
)

// mutations break correct evidence in one place each. change says false where it finds nothing to break. rules are exactly
// those that are broken then.
var mutations = []struct {
	name   string
	rules  []Rule
	change func(*Evidence) bool
}{
	{"the first status is lost", []Rule{AckLost, Hole}, func(e *Evidence) bool {
		return loseStatus(e, func(s Status) bool { return s.Transition == 1 && s.State == events.Accepted })
	}},
	{"a status in the middle is lost", []Rule{AckLost, Hole}, func(e *Evidence) bool {
		return loseStatus(e, func(s Status) bool { return s.State == events.Downloading })
	}},
	{"that a program runs is lost", []Rule{AckLost, Hole}, func(e *Evidence) bool { return loseStatus(e, func(s Status) bool { return s.State == events.Running }) }},
	{"the last status is lost", []Rule{AckLost, InJournal}, func(e *Evidence) bool {
		return loseStatus(e, func(s Status) bool { return s.State == events.WillNotRerun })
	}},
	{"a status is lost that nobody was told is stored", []Rule{Hole}, func(e *Evidence) bool {
		of := func(s Status) bool { return s.State == events.Downloaded && s.Deployment == plain }
		lost := *pick(e.Stored, of)
		e.Acknowledged = slices.DeleteFunc(e.Acknowledged, func(a Ack) bool { return a.Job == lost.Job && a.Transition == lost.Transition })
		return loseStatus(e, of)
	}},
	{"all statuses of a job are lost", []Rule{AckLost, InJournal}, func(e *Evidence) bool {
		d := pick(e.Journals, ended(plain, events.Rejected, events.NotTargeted))
		return d != nil && loseStatus(e, func(s Status) bool { return s.Job == d.Job })
	}},
	{"an acknowledged status was never stored", []Rule{AckLost}, func(e *Evidence) bool {
		return alter(e.Acknowledged, func(a Ack) bool { return a.State == events.Succeeded && uncopied(e, a.Job, a.Transition) }, func(a *Ack) { a.Transition++ })
	}},
	{"two transitions change places", []Rule{AckLost, Sequence}, func(e *Evidence) bool {
		i := slices.IndexFunc(e.Stored, func(s Status) bool {
			return s.State == events.Downloading && s.Deployment == plain && uncopied(e, s.Job, s.Transition) && uncopied(e, s.Job, s.Transition+1)
		})
		j := slices.IndexFunc(e.Stored, func(s Status) bool {
			return i >= 0 && s.Job == e.Stored[i].Job && s.Transition == e.Stored[i].Transition+1
		})
		if i < 0 || j < 0 {
			return false
		}
		a, b := &e.Stored[i], &e.Stored[j]
		a.State, b.State = b.State, a.State
		return true
	}},
	{"a job accepts twice", []Rule{AckLost, Sequence}, restate(events.Downloading, events.Accepted)},
	{"an attempt goes on that is to be tried again", []Rule{AckLost, Sequence}, restate(events.Downloading, events.Retrying)},
	{"the attempt falls", []Rule{Sequence}, func(e *Evidence) bool {
		s := pick(e.Stored, func(s Status) bool {
			return s.Deployment == busy && s.Attempt == 2 && s.State == events.Downloading && uncopied(e, s.Job, s.Transition)
		})
		if s == nil {
			return false
		}
		s.Attempt, s.ID = 1, events.JobStatus{Job: s.Job, Attempt: 1, Transition: s.Transition}.StatusID()
		job, transition := s.Job, s.Transition
		e.Acknowledged = slices.DeleteFunc(e.Acknowledged, func(a Ack) bool { return a.Job == job && a.Transition == transition })
		return true
	}},
	{"an end stands before another end", []Rule{AckLost, AfterEnd, NotFinished}, restate(events.Waiting, events.Succeeded)},
	{"a status follows the end", []Rule{AfterEnd, InExecution, InJournal, Unfinished}, func(e *Evidence) bool {
		return addStatus(e, ended(plain, events.Succeeded, ""), func(s *Status) { s.State, s.Reason, s.Exited = events.Running, "", false })
	}},
	{"a second end follows the end", []Rule{AfterEnd, InExecution, InJournal, NotFinished, Outcome}, func(e *Evidence) bool {
		return addStatus(e, ended(plain, events.Succeeded, ""), func(s *Status) { s.State, s.Reason, s.Exited = events.Failed, events.ExitCode, false })
	}},
	{"a further attempt follows a success", []Rule{AfterEnd, NoOffer, InExecution, InJournal, NotFinished}, func(e *Evidence) bool {
		return addStatus(e, ended(plain, events.Succeeded, ""), func(s *Status) {
			s.Attempt, s.State, s.Reason, s.Exited = 2, events.Rejected, events.NotTargeted, false
		})
	}},
	{"a status is stored under another id", []Rule{StatusID}, func(e *Evidence) bool {
		return alter(e.Stored, func(s Status) bool { return s.State == events.Running }, func(s *Status) { s.ID = "forged" })
	}},
	{"a copy says something else", []Rule{StatusID}, func(e *Evidence) bool {
		s := pick(e.Stored, func(s Status) bool { return s.State == events.Running && uncopied(e, s.Job, s.Transition) })
		if s == nil {
			return false
		}
		copied := *s
		copied.State, copied.Sequence = events.Waiting, 1<<40
		e.Stored = append(e.Stored, copied)
		return true
	}},
	{"a status names another agent", []Rule{Names}, func(e *Evidence) bool {
		return alter(e.Stored, func(s Status) bool { return s.State == events.Running && s.Deployment == plain }, func(s *Status) { s.Agent = events.AgentID([]byte("other")) })
	}},
	{"a success becomes a cancellation in STATUS", []Rule{AckLost, NotStopped, NotFinished, InJournal, InExecution}, func(e *Evidence) bool {
		return alter(e.Stored, func(s Status) bool {
			return s.Deployment == plain && s.State == events.Succeeded && s.Reason == "" && uncopied(e, s.Job, s.Transition)
		}, func(s *Status) { s.State, s.Reason, s.Exited = events.Cancelled, events.DeploymentStopped, false })
	}},
	{"the reason of an end is another in STATUS", []Rule{InJournal, InExecution}, func(e *Evidence) bool {
		return alter(e.Stored, func(s Status) bool {
			return s.Deployment == plain && s.State == events.Rejected && uncopied(e, s.Job, s.Transition)
		}, func(s *Status) { s.Reason = events.OrderExpired })
	}},
	{"a program runs twice in one attempt", []Rule{RanTwice}, func(e *Evidence) bool {
		r := pick(e.Runs, func(r Run) bool { return r.Deployment == plain })
		again := *r
		again.At, again.Ended = r.Ended.Add(time.Millisecond), r.Ended.Add(2*time.Millisecond)
		e.Runs = append(e.Runs, again)
		return true
	}},
	{"a program runs again and nobody was to try again", []Rule{RanTwice}, func(e *Evidence) bool {
		r := pick(e.Runs, func(r Run) bool { return r.Deployment == plain && r.Well && r.Exit == 0 && endedWell(e, r.Job) })
		again := *r
		again.Attempt, again.At, again.Ended = 2, r.Ended.Add(time.Millisecond), r.Ended.Add(2*time.Millisecond)
		e.Runs = append(e.Runs, again)
		return true
	}},
	{"two attempts run beside each other", []Rule{RanTwice}, func(e *Evidence) bool {
		return alter(e.Runs, func(r Run) bool { return r.Deployment == busy && r.Attempt == 1 }, func(r *Run) { r.Ended = r.Ended.Add(time.Hour) })
	}},
	{"a program runs in a job that was not to run", []Rule{RanUntold}, func(e *Evidence) bool {
		j := pick(e.Journals, ended(plain, events.WillNotRerun, events.AlreadyRan))
		if j == nil {
			return false
		}
		e.Runs = append(e.Runs, Run{Agent: j.Agent, Deployment: j.Deployment, Job: j.Job, Attempt: 1, At: j.At, Ended: j.At, Well: true})
		return true
	}},
	{"a program runs after its job was cancelled", []Rule{RanUntold}, func(e *Evidence) bool {
		j := pick(e.Journals, func(j Journal) bool { return j.Deployment == stopped && j.State == events.Cancelled && j.Started == 0 })
		if j == nil {
			return false
		}
		e.Runs = append(e.Runs, Run{Agent: j.Agent, Deployment: j.Deployment, Job: j.Job, Attempt: 1, At: j.At.Add(time.Second)})
		return true
	}},
	{"a program runs without a journal", []Rule{InJournal, RanUntold}, func(e *Evidence) bool {
		n := len(e.Journals)
		i := slices.IndexFunc(e.Journals, ended(plain, events.Succeeded, ""))
		e.Journals = slices.Delete(slices.Clone(e.Journals), i, i+1)
		return len(e.Journals) < n
	}},
	{"a program runs that the journal did not start", []Rule{RanUntold}, func(e *Evidence) bool {
		return alter(e.Journals, ended(plain, events.Succeeded, ""), func(j *Journal) { j.Started = 0 })
	}},
	{"nobody ran what succeeded", []Rule{NotRun}, func(e *Evidence) bool {
		return loseRun(e, func(r Run) bool { return r.Deployment == plain && endedWell(e, r.Job) })
	}},
	{"nobody ran what failed", []Rule{NotRun}, func(e *Evidence) bool {
		return loseRun(e, func(r Run) bool { return r.Deployment == plain && r.Exit == 1603 })
	}},
	{"a success had a failed run", []Rule{Outcome}, func(e *Evidence) bool {
		return alter(e.Runs, func(r Run) bool { return r.Deployment == plain && endedWell(e, r.Job) }, func(r *Run) { r.Well, r.Exit = false, 1603 })
	}},
	{"a failure had a good run", []Rule{Outcome}, func(e *Evidence) bool {
		return alter(e.Runs, func(r Run) bool { return r.Deployment == plain && r.Exit == 1603 }, func(r *Run) { r.Well, r.Exit = true, 0 })
	}},
	{"the exit code is another", []Rule{Outcome}, func(e *Evidence) bool {
		return alter(e.Runs, func(r Run) bool { return r.Deployment == plain && r.Exit == 1603 }, func(r *Run) { r.Exit = 1604 })
	}},
	{"an offer is lost", []Rule{NoOffer}, func(e *Evidence) bool {
		return loseOffer(e, func(o Offer) bool { return o.Deployment == busy && o.Attempt == 2 })
	}},
	{"the offer to an agent that did not speak is lost", []Rule{NotOffered, InExecution}, func(e *Evidence) bool {
		row := pick(e.Jobs, func(r events.JobRow) bool { return r.Deployment == quiet && r.State == events.Offered })
		if row == nil {
			return false
		}
		silent := func(x End) bool { return x.Job == row.Job }
		e.Finished, e.History = slices.DeleteFunc(e.Finished, silent), slices.DeleteFunc(e.History, silent)
		return loseOffer(e, func(o Offer) bool { return o.Job == row.Job })
	}},
	{"an agent is offered what it was not released for", []Rule{NotReleased, Unfinished, InExecution}, func(e *Evidence) bool {
		agent := events.AgentID([]byte("stranger"))
		e.Offers = append(e.Offers, Offer{Name{events.JobID(plain, 1, agent, 0, ""), plain, 1, agent, 0, ""}, digest(plain, 1), 1, e.Orders[0].At.Add(time.Minute), 1 << 40})
		return true
	}},
	{"a release is lost", []Rule{NotReleased, ReleaseLost}, func(e *Evidence) bool {
		r := pick(e.Released, func(r Release) bool { return r.Deployment == plain })
		agent := r.Agents[0]
		for i := range e.Released {
			if e.Released[i].Deployment == plain {
				e.Released[i].Agents = slices.DeleteFunc(slices.Clone(e.Released[i].Agents), func(a string) bool { return a == agent })
			}
		}
		return true
	}},
	{"an agent is released in two batches", []Rule{ReleasedTwice}, func(e *Evidence) bool {
		r := *pick(e.Released, func(r Release) bool { return r.Deployment == plain })
		r.Batch, r.Agents, r.At, r.Sequence = r.Batch+100, r.Agents[:1], r.At.Add(time.Hour), 1<<40
		e.Released = append(e.Released, r)
		return true
	}},
	{"an attempt is offered that nobody asked for", []Rule{WrongOffer}, func(e *Evidence) bool {
		j := pick(e.Journals, ended(plain, events.Succeeded, ""))
		e.Offers = append(e.Offers, Offer{j.Name, digest(plain, 1), 2, j.At.Add(time.Second), 1 << 40})
		return true
	}},
	{"a second job of one revision is offered", []Rule{WrongOffer, Unfinished, InExecution}, func(e *Evidence) bool {
		j := pick(e.Journals, ended(plain, events.Succeeded, ""))
		e.Offers = append(e.Offers, Offer{Name{events.JobID(plain, 1, j.Agent, 7, ""), plain, 1, j.Agent, 7, ""}, digest(plain, 1), 1, j.At.Add(time.Second), 1 << 40})
		return true
	}},
	{"an offer names another order", []Rule{WrongOffer}, func(e *Evidence) bool {
		j := pick(e.Journals, ended(plain, events.Succeeded, ""))
		for i := range e.Offers {
			if e.Offers[i].Job == j.Job {
				e.Offers[i].Order = digest("forged", 1)
			}
		}
		return true
	}},
	{"a failed job that was offered again says nothing", []Rule{Unfinished, InExecution}, func(e *Evidence) bool {
		j := pick(e.Journals, ended(plain, events.Failed, events.ExitCode))
		e.Offers = append(e.Offers, Offer{j.Name, digest(plain, 1), 2, j.At.Add(time.Second), 1 << 40})
		return alter(e.Jobs, func(r events.JobRow) bool { return r.Job == j.Job }, func(r *events.JobRow) { r.State, r.Reason, r.Attempt = events.Running, "", 2 })
	}},
	{"a job has no end", []Rule{Unfinished}, func(e *Evidence) bool {
		j := pick(e.Journals, ended(plain, events.Expired, events.DeploymentExpired))
		if j == nil {
			return false
		}
		of := func(s Status) bool { return s.Job == j.Job && s.State == events.Expired }
		e.Stored = slices.DeleteFunc(e.Stored, of)
		e.Acknowledged = slices.DeleteFunc(e.Acknowledged, func(a Ack) bool { return a.Job == j.Job && a.State == events.Expired })
		end := func(x End) bool { return x.Job == j.Job }
		e.Finished, e.History = slices.DeleteFunc(e.Finished, end), slices.DeleteFunc(e.History, end)
		alter(e.Jobs, func(r events.JobRow) bool { return r.Job == j.Job }, func(r *events.JobRow) { r.State, r.Reason = events.Waiting, "" })
		j.Transition, j.State, j.Reason = j.Transition-1, events.Waiting, ""
		return true
	}},
	{"the journal went back", []Rule{InJournal}, func(e *Evidence) bool {
		return alter(e.Journals, ended(plain, events.Succeeded, ""), func(j *Journal) { j.Transition, j.State = j.Transition-1, events.Running })
	}},
	{"two journals hold one job", []Rule{InJournal}, func(e *Evidence) bool {
		e.Journals = append(e.Journals, *pick(e.Journals, ended(plain, events.Succeeded, "")))
		return true
	}},
	{"execution has another state", []Rule{InExecution}, func(e *Evidence) bool {
		return alter(e.Jobs, func(r events.JobRow) bool { return r.Deployment == plain && r.State == events.Succeeded }, func(r *events.JobRow) { r.State = events.Failed })
	}},
	{"execution still waits for the agent", []Rule{InExecution}, func(e *Evidence) bool {
		return alter(e.Jobs, func(r events.JobRow) bool { return r.Deployment == plain && r.State == events.Succeeded }, func(r *events.JobRow) { r.State, r.Reason = events.Offered, "" })
	}},
	{"execution forgot a job", []Rule{InExecution}, func(e *Evidence) bool {
		i := slices.IndexFunc(e.Jobs, func(r events.JobRow) bool { return r.Deployment == plain })
		e.Jobs = slices.Delete(slices.Clone(e.Jobs), i, i+1)
		return true
	}},
	{"execution has an older occurrence", []Rule{InExecution}, func(e *Evidence) bool {
		return alter(e.Jobs, func(r events.JobRow) bool { return r.Deployment == standing }, func(r *events.JobRow) {
			r.Occurrence, r.Job = 100, events.JobID(standing, 1, r.Agent, 100, "")
		})
	}},
	{"execution invents a job", []Rule{InExecution}, func(e *Evidence) bool {
		row := *pick(e.Jobs, func(r events.JobRow) bool { return r.Deployment == plain && r.State == events.Succeeded })
		row.Agent = events.AgentID([]byte("invented"))
		row.Job = events.JobID(plain, 1, row.Agent, 0, "")
		e.Jobs = append(e.Jobs, row)
		return true
	}},
	{"that a job finished is lost", []Rule{NotFinished, NotInHistory}, func(e *Evidence) bool {
		j := pick(e.Journals, ended(plain, events.Succeeded, ""))
		e.Finished = slices.DeleteFunc(e.Finished, func(f End) bool { return f.Job == j.Job })
		return true
	}},
	{"a job finished in two ways", []Rule{NotFinished, NotInHistory}, func(e *Evidence) bool {
		f := *pick(e.Finished, func(f End) bool { return f.Deployment == plain && f.State == events.Succeeded })
		f.State, f.Sequence = events.Failed, 1<<40
		e.Finished = append(e.Finished, f)
		return true
	}},
	{"a job finished that never said so", []Rule{NotFinished, NotInHistory}, func(e *Evidence) bool {
		j := pick(e.Journals, func(j Journal) bool { return j.Deployment == standing && j.Occurrence == 0 })
		e.Finished = append(e.Finished, End{Name: j.Name, Attempt: 1, Transition: 9, State: events.Succeeded, At: j.At, Sequence: 1 << 40})
		return true
	}},
	{"HISTORY lacks an end", []Rule{NotInHistory}, func(e *Evidence) bool {
		j := pick(e.Journals, ended(plain, events.Succeeded, ""))
		e.History = slices.DeleteFunc(e.History, func(f End) bool { return f.Job == j.Job })
		return true
	}},
}

func TestEachMutationIsFoundByItsRules(t *testing.T) {
	if len(mutations) < 25 {
		t.Fatalf("there are %d mutations", len(mutations))
	}
	seen := map[Rule]bool{}
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			for seed := range int64(2) {
				e := generate(seed, 60)
				if !m.change(&e) {
					t.Fatalf("seed %d: nothing was broken", seed)
				}
				found := Check(e)
				rules := map[Rule]bool{}
				for _, v := range found {
					rules[v.Rule], seen[v.Rule] = true, true
					if len(v.History) > 3 || v.Text == "" {
						t.Errorf("seed %d: a violation has %d lines", seed, len(v.History))
					}
				}
				want := map[Rule]bool{}
				for _, r := range m.rules {
					want[r] = true
				}
				if diff := cmp.Diff(want, rules); diff != "" {
					t.Fatalf("seed %d: %s\n%s", seed, diff, Report(found, 10))
				}
			}
		})
	}
	for _, r := range []Rule{Names, ReleasedTwice, ReleaseLost, NotOffered, NotReleased, WrongOffer, NoOffer, StatusID, Hole, Sequence, AfterEnd, NotStopped, AckLost,
		InJournal, Unfinished, InExecution, RanTwice, RanUntold, NotRun, Outcome, NotFinished, NotInHistory} {
		if !seen[r] {
			t.Errorf("no mutation broke %s", r)
		}
	}
}

func ended(deployment string, state events.State, reason events.Reason) func(Journal) bool {
	return func(j Journal) bool { return j.Deployment == deployment && j.State == state && j.Reason == reason }
}

func endedWell(e *Evidence, job string) bool {
	return slices.ContainsFunc(e.Journals, func(j Journal) bool { return j.Job == job && j.State == events.Succeeded })
}

// uncopied says that a status is stored once.
func uncopied(e *Evidence, job string, transition uint32) bool {
	n := 0
	for i := range e.Stored {
		if e.Stored[i].Job == job && e.Stored[i].Transition == transition {
			n++
		}
	}
	return n == 1
}

func pick[T any](list []T, which func(T) bool) *T {
	if i := slices.IndexFunc(list, which); i >= 0 {
		return &list[i]
	}
	return nil
}

func alter[T any](list []T, which func(T) bool, change func(*T)) bool {
	one := pick(list, which)
	if one != nil {
		change(one)
	}
	return one != nil
}

// restate makes the first status of a state, that is stored once, say another one.
func restate(from, to events.State) func(*Evidence) bool {
	return func(e *Evidence) bool {
		return alter(e.Stored, func(s Status) bool {
			return s.Deployment == plain && s.State == from && uncopied(e, s.Job, s.Transition)
		}, func(s *Status) { s.State = to })
	}
}

// loseStatus removes every copy of the first status that is meant; of all of one job, if all are meant.
func loseStatus(e *Evidence, which func(Status) bool) bool {
	first := pick(e.Stored, func(s Status) bool { return s.Deployment == plain && which(s) })
	if first == nil {
		return false
	}
	lost := *first
	all := which(Status{Name: lost.Name})
	e.Stored = slices.DeleteFunc(e.Stored, func(s Status) bool { return s.Job == lost.Job && (all || s.Transition == lost.Transition) })
	return true
}

func loseRun(e *Evidence, which func(Run) bool) bool {
	i := slices.IndexFunc(e.Runs, which)
	if i >= 0 {
		e.Runs = slices.Delete(e.Runs, i, i+1)
	}
	return i >= 0
}

func loseOffer(e *Evidence, which func(Offer) bool) bool {
	o := pick(e.Offers, which)
	if o == nil {
		return false
	}
	lost := *o
	e.Offers = slices.DeleteFunc(e.Offers, func(o Offer) bool { return o.Job == lost.Job && o.Attempt == lost.Attempt })
	return true
}

// addStatus lets the agent of a job that ended say one thing more.
func addStatus(e *Evidence, which func(Journal) bool, change func(*Status)) bool {
	j := pick(e.Journals, which)
	if j == nil {
		return false
	}
	last := *pick(e.Stored, func(s Status) bool { return s.Job == j.Job && s.Transition == j.Transition })
	last.Transition, last.Sequence, last.At = last.Transition+1, 1<<40, last.At.Add(time.Second)
	change(&last)
	last.ID = events.JobStatus{Job: last.Job, Attempt: last.Attempt, Transition: last.Transition}.StatusID()
	e.Stored = append(e.Stored, last)
	return true
}
