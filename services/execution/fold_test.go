package execution

import (
	"fmt"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"chandler/events"
)

var testTime = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

// testStatus is what an agent's journal holds at one transition: the same for the same numbers.
func testStatus(deployment, agent, user string, revision uint64, occurrence int64, transition uint32) events.JobStatus {
	states := events.States()[1:14] // all that agents say
	reasons := []events.Reason{events.NoReason, events.ExitCode, events.SourceUnreachable, "of_a_later_version"}
	return events.JobStatus{
		Job: events.JobID(deployment, revision, agent, occurrence, user), Deployment: deployment, Revision: revision, Agent: agent, User: user, Occurrence: occurrence,
		Attempt: 1 + int(transition)/5, Transition: transition, Site: map[string]string{"aaaaaaaa": "oslo", "bbbbbbbb": "bergen"}[agent], State: states[(int(transition)*7+int(revision))%len(states)], Reason: reasons[int(transition)%len(reasons)],
		At: testTime.Add(time.Duration(transition) * time.Minute),
	}
}

func drawStatuses(t *rapid.T) []events.JobStatus {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) events.JobStatus {
		return testStatus(
			rapid.SampledFrom([]string{"one", "two"}).Draw(t, "deployment"), rapid.SampledFrom([]string{"aaaaaaaa", "bbbbbbbb", "cccccccc"}).Draw(t, "agent"),
			rapid.SampledFrom([]string{"", "", "kim"}).Draw(t, "user"), rapid.Uint64Range(1, 3).Draw(t, "revision"),
			rapid.SampledFrom([]int64{0, 3600}).Draw(t, "occurrence"), rapid.Uint32Range(1, 12).Draw(t, "transition"))
	}), 0, 60).Draw(t, "statuses")
}

// foldAll folds in batches of the given size and applies every change.
func foldAll(t interface{ Fatal(...any) }, statuses []events.JobStatus, size int) *jobs {
	s := newJobs(newCodes())
	for batch := range slices.Chunk(statuses, size) {
		if err := s.apply(s.sequence+1, fold(s, batch).delta); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// view is a state without the order in which things became known.
type view struct {
	Jobs   map[string]events.JobRow
	Counts map[string]events.Progress
}

func viewOf(s *jobs) view {
	v := view{map[string]events.JobRow{}, map[string]events.Progress{}}
	for j := range s.all("") {
		v.Jobs[fmt.Sprint(j.key())] = j.row()
	}
	for name := range s.byName {
		for revision := range uint64(4) {
			p := events.Progress{Deployment: name, Revision: revision, States: map[events.State]int64{}, Reasons: map[events.Reason]int64{}}
			s.addTo(&p, wholeRollout)
			if p.Total > 0 { // a revision that was left again has no jobs
				v.Counts[fmt.Sprint(name, revision)] = p
			}
		}
	}
	return v
}

// recount counts from the records what the state counts as it goes.
func recount(s *jobs) map[string]events.Progress {
	counts := map[string]events.Progress{}
	for j := range s.all("") {
		key := fmt.Sprint(j.deployment, j.revision)
		p, ok := counts[key]
		if !ok {
			p = events.Progress{Deployment: j.deployment, Revision: j.revision, States: map[events.State]int64{}, Reasons: map[events.Reason]int64{}}
		}
		p.Total++
		p.States[j.state]++
		if j.reason != events.NoReason && slices.Contains([]events.State{events.Rejected, events.Retrying, events.Failed}, j.state) {
			p.Reasons[j.reason]++
		}
		if j.flags&(flagSilent|flagLapsed) != 0 {
			p.Silent++
		}
		recountRollout(&p, j, s.siteOf(j.agent))
		counts[key] = p
	}
	return counts
}

// recountRollout counts one job by its phase and site, by what package events says of them.
func recountRollout(p *events.Progress, j job, site string) {
	if j.user != "" || j.flags&flagStray != 0 {
		return
	}
	if p.Sites == nil {
		p.Sites = map[string]events.SiteCounts{}
	}
	i := slices.IndexFunc(p.Waves, func(w events.WaveCounts) bool { return w.Wave == int(j.wave) })
	if i < 0 {
		i, p.Waves = len(p.Waves), append(p.Waves, events.WaveCounts{Wave: int(j.wave)})
	}
	w, at := &p.Waves[i], p.Sites[site]
	w.Offered++
	at.Offered++
	if j.state.InFlight() && j.flags&quiet == 0 {
		w.InFlight++
		at.InFlight++
	}
	p.Sites[site] = at
	if j.flags&flagJoined == 0 {
		w.Agents++
		switch outcome := events.OutcomeOf(j.state, j.reason); {
		case outcome == events.OutcomeSucceeded:
			w.Succeeded++
		case outcome == events.OutcomeFailed:
			w.Failed++
		case outcome == events.OutcomeNotApplicable:
			w.NotApplicable++
		case j.state == events.Waiting:
			w.Waiting++
		case j.state == events.Offered && j.flags&quiet != 0:
			w.Silent++
		}
	}
	slices.SortFunc(p.Waves, func(a, b events.WaveCounts) int { return a.Wave - b.Wave })
}

func TestAnyOrderOfStatusesAndAnyRepetitionFoldsToTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		statuses := drawStatuses(t)
		again := rapid.SliceOfN(rapid.IntRange(0, max(0, len(statuses)-1)), 0, len(statuses)).Draw(t, "repeated")
		shuffled := slices.Clone(statuses)
		for _, i := range again {
			shuffled = append(shuffled, statuses[i])
		}
		shuffled = rapid.Permutation(shuffled).Draw(t, "order")

		want := foldAll(t, statuses, 7)
		got := foldAll(t, shuffled, rapid.IntRange(1, 20).Draw(t, "batch"))
		if diff := cmp.Diff(viewOf(want), viewOf(got)); diff != "" {
			t.Fatalf("another order gives another state (-first +second):\n%s", diff)
		}
		if diff := cmp.Diff(recount(got), viewOf(got).Counts); diff != "" {
			t.Fatalf("the counts are not those of the records (-records +counts):\n%s", diff)
		}
		if o := fold(got, shuffled); len(o.delta.jobs) > 0 {
			t.Fatalf("folding once more changes %d jobs", len(o.delta.jobs))
		}
	})
}

func TestCountsStayThoseOfTheRecordsWhateverChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := foldAll(t, drawStatuses(t), 10)
		for range rapid.IntRange(0, 10).Draw(t, "changes") {
			d := unchanged(s).delta
			for j := range s.all("") {
				switch rapid.IntRange(0, 6).Draw(t, "change") {
				case 0:
					d.jobs = append(d.jobs, j.offered(int(j.attempt)+1, testTime))
				case 1:
					j.flags |= flagLapsed
					d.jobs = append(d.jobs, j)
				case 2:
					j.flags |= flagSilent | flagCancel
					d.jobs = append(d.jobs, j)
				case 3:
					d.jobs = append(d.jobs, j.released(events.Release{Phase: rapid.IntRange(0, 3).Draw(t, "phase"), Joined: rapid.Bool().Draw(t, "joined")}))
				case 4:
					d.places = append(d.places, place{j.agent, rapid.SampledFrom([]string{"", "oslo", "bergen", "tromso"}).Draw(t, "site")})
				}
			}
			if rapid.IntRange(0, 5).Draw(t, "remove") == 0 {
				d.removed = []removal{{"one", 3}}
			}
			if err := s.apply(s.sequence+1, d); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(recount(s), viewOf(s).Counts); diff != "" {
			t.Fatalf("the counts are not those of the records (-records +counts):\n%s", diff)
		}
	})
}

func TestTake(t *testing.T) {
	status := func(revision uint64, occurrence int64, attempt int, transition uint32, state events.State) events.JobStatus {
		return events.JobStatus{Deployment: "d", Agent: "aaaaaaaa", Revision: revision, Occurrence: occurrence, Attempt: attempt, Transition: transition, State: state, At: testTime}
	}
	before := job{deployment: "d", agent: "aaaaaaaa", revision: 2, occurrence: 60, attempt: 2, transition: 5, state: events.Running, flags: flagSilent | flagCancel | flagJoined, wave: 3}
	tests := []struct {
		name    string
		status  events.JobStatus
		changed bool
		state   events.State
		attempt uint16
		flags   uint8
	}{
		{"a higher transition is taken and ends silence", status(2, 60, 2, 6, events.Succeeded), true, events.Succeeded, 2, flagCancel | flagJoined},
		{"the same transition is not taken", status(2, 60, 2, 5, events.Failed), false, events.Running, 2, flagSilent | flagCancel | flagJoined},
		{"a lower transition is not taken", status(2, 60, 2, 4, events.Failed), false, events.Running, 2, flagSilent | flagCancel | flagJoined},
		{"a lower transition of a higher attempt raises the attempt alone", status(2, 60, 3, 4, events.Failed), true, events.Running, 3, flagSilent | flagCancel | flagJoined},
		{"a higher transition of a lower attempt keeps the attempt", status(2, 60, 1, 6, events.Cancelled), true, events.Cancelled, 2, flagCancel | flagJoined},
		{"a later occurrence is taken whatever its transition", status(2, 120, 1, 1, events.Accepted), true, events.Accepted, 1, flagCancel | flagJoined},
		{"an earlier occurrence is not taken", status(2, 0, 9, 9, events.Failed), false, events.Running, 2, flagSilent | flagCancel | flagJoined},
		{"the end of the job without an occurrence is noted", status(2, 0, 1, 9, events.Cancelled), true, events.Running, 2, flagSilent | flagCancel | flagJoined | flagClosed},
		{"a newer revision is taken whatever its occurrence, and knows neither a stop nor a release", status(3, 0, 1, 1, events.Accepted), true, events.Accepted, 1, flagStray},
		{"an older revision is not taken", status(1, 999, 9, 9, events.Failed), false, events.Running, 2, flagSilent | flagCancel | flagJoined},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			after, changed := before.take(test.status)
			if wave := map[bool]uint8{true: 3}[after.revision == 2]; after.wave != wave {
				t.Errorf("it is in phase %d, want %d", after.wave, wave)
			}
			if changed != test.changed || after.state != test.state || after.attempt != test.attempt || after.flags != test.flags {
				t.Errorf("changed %v to %s attempt %d flags %b, want %v, %s, %d, %b", changed, after.state, after.attempt, after.flags, test.changed, test.state, test.attempt, test.flags)
			}
		})
	}
}

func TestFoldTellsWhatFollows(t *testing.T) {
	s := newJobs(newCodes())
	status := testStatus("one", "aaaaaaaa", "", 2, 0, 1)
	status.State = events.Succeeded
	old := testStatus("one", "aaaaaaaa", "", 1, 0, 9)
	old.State = events.Failed
	retrying := testStatus("two", "aaaaaaaa", "", 1, 0, 3)
	retrying.State, retrying.RetryAt = events.Retrying, new(testTime.Add(time.Hour))

	o := fold(s, []events.JobStatus{status, old, retrying, status})
	if len(o.ends) != 2 || o.ends[0].Job != status.Job || o.ends[1].Job != old.Job {
		t.Errorf("ends %v: want the end of the job and that of its superseded revision, each once", o.ends)
	}
	if len(o.retries) != 1 || !o.retries[0].due.Equal(*retrying.RetryAt) {
		t.Errorf("retries %v: want one, at the agent's time", o.retries)
	}
	if len(o.delta.jobs) != 2 {
		t.Errorf("%d records change, want 2", len(o.delta.jobs))
	}
}

func TestOneAgentCannotMakeExecutionKeepWithoutLimit(t *testing.T) {
	s := newJobs(newCodes())
	var statuses []events.JobStatus
	for i := range maxJobsOfAgent + 10 {
		statuses = append(statuses, testStatus("one", "aaaaaaaa", fmt.Sprint("user", i), 1, 0, 1))
	}
	long := testStatus("one", "bbbbbbbb", string(make([]byte, maxUser+1)), 1, 0, 1)
	refused := 0
	for batch := range slices.Chunk(append(statuses, long), 1000) {
		o := fold(s, batch)
		refused += o.refused
		if err := s.apply(s.sequence+1, o.delta); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.countOf("aaaaaaaa"); n != maxJobsOfAgent || refused != 11 {
		t.Errorf("%d records kept and %d statuses refused, want %d and 11", n, refused, maxJobsOfAgent)
	}
}

func TestARecordStaysSmall(t *testing.T) {
	if size := unsafe.Sizeof(record{}); size != 24 {
		t.Errorf("a record takes %d bytes, design.md §5 gives it 24", size)
	}
}

func TestEveryWordHasACodeOfItsOwn(t *testing.T) {
	c := newCodes()
	for _, r := range append(events.Reasons(), events.NoReason) {
		if got := c.reasons[c.reason(r)]; got != r {
			t.Errorf("reason %q comes back as %q", r, got)
		}
	}
	for _, s := range events.States() {
		if got := c.states[c.state(s)]; got != s {
			t.Errorf("state %q comes back as %q", s, got)
		}
	}
	if c.reasons[c.reason("of_a_later_version")] != events.OtherReason || c.states[c.state("of_a_later_version")] != events.OtherState {
		t.Error("unknown words are not other")
	}
	if len(c.states) > 1<<stageBits || len(c.waiting) > 1<<(8-stageBits) {
		t.Errorf("%d states and %d things to wait for do not fit one byte together", len(c.states), len(c.waiting))
	}
	for state := range uint8(len(c.states)) {
		for waits := range uint8(len(c.waiting)) {
			if r := (record{stage: stageOf(state, waits)}); r.state() != state || r.waiting() != waits {
				t.Errorf("state %d waiting for %d come back as %d and %d", state, waits, r.state(), r.waiting())
			}
		}
	}
	if len(c.reasons) > 256 {
		t.Errorf("%d reasons do not fit one byte", len(c.reasons))
	}
}
