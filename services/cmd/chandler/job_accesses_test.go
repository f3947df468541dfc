package main

import (
	"strings"
	"testing"
	"time"

	"chandler/events"
	"chandler/events/advice"
)

// toldOf is the story of a job whose only attempt had these accesses, and which ended so.
func toldOf(state events.State, reason events.Reason, explanation string, accesses ...events.Access) string {
	s := events.JobStatus{State: state, Reason: reason, Explanation: explanation, Attempt: 1, Accesses: accesses}
	return strings.Join(testApp(nil).storyLines(story{Job: events.JobRow{Job: "job1aaaaaaa", Deployment: "hello", State: state}, Statuses: []events.JobStatus{s}}), "\n")
}

func TestWhatWasFoundToBeAnotherFileIsNotSaidToBeRead(t *testing.T) {
	read, changed := tried(events.NoReason, events.AccessReference, "", 0), tried(events.ContentChanged, events.AccessReference, "its SHA-256 is other", time.Second)
	text := toldOf(events.Failed, events.ContentChanged, "", read, changed)
	inOrder(t, text, "failed: content_changed", `was let in first, and opened \\files.example\apps`, `found something else at \\files.example\apps than was published`)
	if strings.Contains(text, ` read \\files`) {
		t.Errorf("it says that it was read:\n%s", text)
	}
	elsewhere := changed
	elsewhere.Resource = "smb://files.example/other"
	if text := toldOf(events.Failed, events.ContentChanged, "", read, elsewhere); !strings.Contains(text, `(EXAMPLE\reader) read \\files.example\apps`) {
		t.Errorf("of another file:\n%s", text)
	}
}

func TestTheAdviceOfAnAgentIsSaidOnceAndWithItsNames(t *testing.T) {
	denied := tried(events.NetworkAccessDenied, events.AccessContent, "access denied (5/0x80070005)", 0)
	text := toldOf(events.Failed, events.NetworkAccessDenied, advice.Sentence(denied)+"; "+advice.For(denied), denied)
	if strings.Count(text, "grant it read") != 1 || strings.Count(text, "may not read") != 1 || !strings.HasSuffix(text, "\nadvice: grant it read, or add an account for smb://files.example/apps, then `chandler deployment retry hello`") {
		t.Errorf("got\n%s", text)
	}
}

func TestWhatAProgramDidWithoutNeedsNoMending(t *testing.T) {
	missing := tried(events.SourceNotFound, events.AccessRun, "file not found (2/0x80070002)", 0)
	text := toldOf(events.Succeeded, events.NoReason, "", missing)
	if !strings.Contains(text, "found nothing at") || !strings.Contains(text, "; the job succeeded without it") || strings.Contains(text, "publish") || strings.Contains(text, "advice") {
		t.Errorf("got\n%s", text)
	}
	use := leaseEvent{Event: "credential.used", Use: &events.LeaseUse{Access: missing}}
	if got := testApp(nil).leaseText(use, telling{spared: true}); !strings.HasSuffix(got, "; the job succeeded without it") {
		t.Errorf("got %s", got)
	}
	if text := toldOf(events.Failed, events.ExitCode, "", missing); !strings.Contains(text, "publish it again") {
		t.Errorf("of a job that failed:\n%s", text)
	}
}
