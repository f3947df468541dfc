package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"chandler/events"
	"chandler/events/bus"
)

const testAgent = "agent0001"

// shortJob is the id of the job of [status] as people are shown it.
var shortJob = jobCell(events.JobID("hello", 1, testAgent, 0, "")).text

func status(t *testing.T, f *fakeFleet, transition uint32, change func(*events.JobStatus)) events.JobStatus {
	t.Helper()
	s := events.JobStatus{Job: events.JobID("hello", 1, testAgent, 0, ""), Deployment: "hello", Revision: 1, Order: events.DigestOf(nil), Agent: testAgent,
		Host: "ws-1", Attempt: 1, Transition: transition, State: events.Accepted, At: testNow.Add(time.Duration(transition) * time.Second)}
	change(&s)
	kind, ok := events.StatusType(s.State)
	if !ok {
		t.Fatalf("no event type of state %s", s.State)
	}
	if _, err := bus.Publish(t.Context(), f.bus, kind, events.Event[events.JobStatus]{ID: s.StatusID(), Source: events.AgentSource(testAgent), Subject: testAgent, Time: s.At, Data: s}); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhyAnswersWhetherThereIsAJobOrNot(t *testing.T) {
	member := events.WhyDecision{Deployment: "hello", Member: true, Released: true, Life: events.LifeActive, Says: "included by id"}
	for name, c := range map[string]struct {
		change func(t *testing.T, f *fakeFleet)
		says   []string
	}{
		"not in the target": {func(t *testing.T, f *fakeFleet) {
			f.decisions = []events.WhyDecision{{Deployment: "hello", Life: events.LifeActive, Says: `agent.os == "windows" is false: agent.os is "linux"`}}
		}, []string{`agent.os is "linux"`, "not in the target"}},
		"not yet available": {func(t *testing.T, f *fakeFleet) {
			f.decisions = []events.WhyDecision{{Deployment: "hello", Member: true, Life: events.LifePending, Says: "available from tomorrow"}}
		}, []string{"available from tomorrow", "not available yet"}},
		"paused": {func(t *testing.T, f *fakeFleet) {
			f.decisions = []events.WhyDecision{{Deployment: "hello", Member: true, Life: events.LifePaused, Says: "in the target"}}
		}, []string{"chandler deployment resume hello"}},
		"its phase is not open": {func(t *testing.T, f *fakeFleet) {
			f.decisions = []events.WhyDecision{{Deployment: "hello", Member: true, Life: events.LifeActive, Phase: "rest", Says: "in phase rest, which is not open yet"}}
		}, []string{"which is not open yet", "its phase, rest, is not open yet"}},
		"halted before it was released": {func(t *testing.T, f *fakeFleet) {
			f.decisions = []events.WhyDecision{{Deployment: "hello", Member: true, Life: events.LifeHalted, Phase: "rest", Says: "in phase rest"}}
		}, []string{"there is no job: its rollout is halted", "chandler deployment show hello"}},
		"halted while it waits": {func(t *testing.T, f *fakeFleet) {
			halted := member
			halted.Life = events.LifeHalted
			f.decisions = []events.WhyDecision{halted}
			f.jobs = []events.JobRow{{Job: events.JobID("hello", 1, testAgent, 0, ""), Deployment: "hello", Agent: testAgent, State: events.Waiting, WaitingFor: events.WaitFreeze, Changed: testNow}}
		}, []string{"waiting for freeze", "its rollout is halted"}},
		"outside its maintenance windows": {func(t *testing.T, f *fakeFleet) {
			f.decisions = []events.WhyDecision{member}
			f.jobs = []events.JobRow{{Job: events.JobID("hello", 1, testAgent, 0, ""), Deployment: "hello", Agent: testAgent, State: events.Waiting, WaitingFor: events.WaitMaintenanceWindow, Changed: testNow}}
		}, []string{"waiting for maintenance window", "chandler collection windows NAME --agent"}},
		"the newest of several occurrences": {func(t *testing.T, f *fakeFleet) {
			f.decisions = []events.WhyDecision{member}
			at := time.Date(2026, 12, 5, 2, 0, 0, 0, time.UTC).Unix()
			f.jobs = []events.JobRow{{Job: events.JobID("hello", 1, testAgent, 1, ""), Deployment: "hello", Agent: testAgent, Occurrence: 1, State: events.Succeeded, Changed: testNow},
				{Job: events.JobID("hello", 1, testAgent, at, ""), Deployment: "hello", Agent: testAgent, Occurrence: at, State: events.Succeeded, Changed: testNow.Add(time.Hour)}}
		}, []string{", the occurrence of 2026-12-05 02:00 by the clocks of the deployment's zone, attempt"}},
		"the one that runs as soon as possible": {func(t *testing.T, f *fakeFleet) {
			f.decisions = []events.WhyDecision{member}
			f.jobs = []events.JobRow{{Job: "job1", Deployment: "hello", Agent: testAgent, Occurrence: 1, State: events.Succeeded, Changed: testNow}}
		}, []string{"job job1, attempt"}},
		"what runs first": {func(t *testing.T, f *fakeFleet) {
			f.decisions = []events.WhyDecision{member}
			s := status(t, f, 1, func(s *events.JobStatus) { s.State, s.Step = events.Running, "runtime@4.2/install" })
			f.jobs = []events.JobRow{{Job: s.Job, Deployment: "hello", Agent: testAgent, State: s.State, Changed: testNow}}
		}, []string{"running, runtime@4.2/install first"}},
		"frozen by its site": {func(t *testing.T, f *fakeFleet) {
			f.decisions = []events.WhyDecision{member}
			f.jobs = []events.JobRow{{Job: events.JobID("hello", 1, testAgent, 0, ""), Deployment: "hello", Agent: testAgent, State: events.Waiting, WaitingFor: events.WaitFreeze, Changed: testNow}}
			f.freezes = []events.Freeze{{ID: "site-oslo", Scope: "site", Name: "oslo", By: "kari", Why: "audit"}, {ID: "site-bergen", Scope: "site", Name: "bergen", By: "ola"}}
		}, []string{"frozen: site oslo", "kari", "audit", "waiting for freeze", "starts when it is lifted"}},
		"offline": {func(t *testing.T, f *fakeFleet) {
			f.decisions = []events.WhyDecision{member}
			f.agents[0].LastSeen = testNow.Add(-3 * time.Hour)
			f.jobs = []events.JobRow{{Job: events.JobID("hello", 1, testAgent, 0, ""), Deployment: "hello", Agent: testAgent, State: events.Offered, Changed: testNow}}
		}, []string{"offline since 2026-12-01 06:00:00 CET", "goes on when it is back"}},
		"ran before": {func(t *testing.T, f *fakeFleet) {
			f.decisions = []events.WhyDecision{member}
			f.jobs = []events.JobRow{{Job: events.JobID("hello", 1, testAgent, 0, ""), Deployment: "hello", Agent: testAgent, State: events.WillNotRerun, Reason: events.AlreadyRan, Changed: testNow}}
		}, []string{"will not rerun", "advice: " + events.AlreadyRan.Info().Advice}},
		"failed, in the machine's own words": {func(t *testing.T, f *fakeFleet) {
			f.decisions = []events.WhyDecision{member}
			status(t, f, 1, func(*events.JobStatus) {})
			s := status(t, f, 2, func(s *events.JobStatus) {
				s.State, s.Reason, s.ExitCode = events.Failed, events.ExitCode, new(1603)
				s.Executor, s.ElevatedTo = "root", "Administrators"
				s.Explanation, s.Identity, s.Resource, s.Answer = "root ran setup", "root", "smb://files.example/x", "access denied"
			})
			f.jobs = []events.JobRow{{Job: s.Job, Deployment: "hello", Agent: testAgent, State: s.State, Reason: s.Reason, Attempt: 1, Changed: s.At}}
		}, []string{"root ran setup", "exit code 1603", "who tried: root", "smb://files.example/x", "access denied", "run by: root", "elevated to: Administrators",
			"chandler job logs " + shortJob + ")", "its whole story: `chandler job why " + shortJob + "`"}},
		"revoked": {func(t *testing.T, f *fakeFleet) {
			f.decisions = []events.WhyDecision{member}
			f.enrolments = []events.EnrolmentView{identityOf(testAgent, "ws-1", events.EnrolmentRevoked)}
		}, []string{"identity revoked: the machine comes back only by enrolling anew", "there is no job: the machine is revoked"}},
		"revoked, with a job": {func(t *testing.T, f *fakeFleet) {
			f.decisions = []events.WhyDecision{member}
			f.enrolments = []events.EnrolmentView{identityOf(testAgent, "ws-1", events.EnrolmentRevoked)}
			f.jobs = []events.JobRow{{Job: events.JobID("hello", 1, testAgent, 0, ""), Deployment: "hello", Agent: testAgent, State: events.Offered, Changed: testNow}}
		}, []string{"it does not go on"}},
		"nothing concerns it": {func(*testing.T, *fakeFleet) {}, []string{"no deployment concerns it"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeFleet(t)
			f.set(func() {
				f.agents = []events.AgentView{agentNamed(testAgent, "ws-1", "oslo")}
				c.change(t, f)
			})
			code, stdout, stderr := command(t, f.app, "", "why", "ws-1")
			if code != 0 {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			for _, s := range c.says {
				if !strings.Contains(stdout, s) {
					t.Errorf("it does not say %q:\n%s", s, stdout)
				}
			}
			if strings.Contains(stdout, "bergen") {
				t.Errorf("it tells of another site's freeze:\n%s", stdout)
			}
		})
	}
}

func TestAJobsStoryIsToldInOrderAndOnce(t *testing.T) {
	f := newFakeFleet(t)
	status(t, f, 3, func(s *events.JobStatus) { s.State, s.Reader, s.Executor = events.Succeeded, "the agent", "root" })
	status(t, f, 1, func(s *events.JobStatus) { s.Reader = "the agent" })
	s := status(t, f, 2, func(s *events.JobStatus) { s.State, s.Reader, s.Executor = events.Running, "the agent", "root" })
	f.set(func() {
		f.jobs = []events.JobRow{{Job: s.Job, Deployment: "hello", Agent: testAgent, State: events.Succeeded}}
	})

	code, stdout, stderr := command(t, f.app, "", "job", "why", s.Job[:6])
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	accepted, running, succeeded := strings.Index(stdout, "accepted"), strings.Index(stdout, "running"), strings.Index(stdout, "succeeded")
	if accepted < 0 || running < accepted || succeeded < running || strings.Count(stdout, "run by: root") != 1 || strings.Count(stdout, "read by: the agent") != 1 {
		t.Errorf("got %s", stdout)
	}
	_, stdout, _ = command(t, f.app, "", "job", "show", s.Job, "-o", "json")
	var told story
	if err := json.Unmarshal([]byte(stdout), &told); err != nil || len(told.Statuses) != 3 {
		t.Errorf("got %d statuses, %v: %s", len(told.Statuses), err, stdout)
	}
	code, stdout, stderr = command(t, f.app, "", "events", "tail", "--no-follow", "--type", "job.running", "-o", "json")
	if code != 0 || strings.Count(stdout, "\n") != 1 || !strings.Contains(stdout, `"specversion":"1.0"`) {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}

func TestStopWaitsForAgentsToConfirm(t *testing.T) {
	f := newFakeFleet(t)
	f.set(func() {
		f.stops = []events.StopAnswer{{Deployment: "hello", Unreachable: 3}, {Deployment: "hello", Stopped: 2, Unreachable: 1}, {Deployment: "hello", Stopped: 3}}
	})
	code, stdout, stderr := command(t, f.app, "", "deployment", "stop", "hello")
	if code != 0 || stdout != "deployment hello: stopped 3 · running 0 · unreachable 0\n" {
		t.Fatalf("exit code %d: %q %s", code, stdout, stderr)
	}
}

func TestDoctorWarnsOfAnOrderNearItsEndAndNotOfOneThatWasMeantToBeShort(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		age, left time.Duration
		want      string
	}{
		"long, with long to go":    {10 * day, 80 * day, stateOK},
		"long, near its end":       {80 * day, 10 * day, stateWarning},
		"short, just begun":        {0, day, stateOK},
		"short, near its end":      {23 * time.Hour, time.Hour, stateWarning},
		"over":                     {day, -time.Hour, stateProblem},
		"of two weeks, just begun": {0, 13 * day, stateOK},
	} {
		t.Run(name, func(t *testing.T) {
			d := events.DeploymentView{Life: events.LifeActive, NotAfter: testNow.Add(c.left)}
			d.Deployment, d.At = "hello", testNow.Add(-c.age)
			if found := testApp(nil).judgeOrders([]events.DeploymentView{d}); len(found) != 1 || found[0].State != c.want {
				t.Errorf("got %+v, want %s", found, c.want)
			}
		})
	}
}

func TestDoctorNamesWhatIsWrong(t *testing.T) {
	f := newFakeFleet(t)
	f.set(func() { f.agents = []events.AgentView{agentNamed(testAgent, "ws-1", "oslo")} })
	if code, stdout, stderr := command(t, f.app, "", "doctor"); code != 0 {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	if err := f.bus.JetStream().DeleteStream(t.Context(), events.StreamLogs); err != nil {
		t.Fatal(err)
	}
	f.set(func() { f.agents[0].LastSeen = testNow.Add(-time.Hour) })
	code, stdout, stderr := command(t, f.app, "", "doctor")
	if code != 1 || !strings.Contains(stdout, "stream LOGS") || !strings.Contains(stdout, "1 of 1 silent") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
}
