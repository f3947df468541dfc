package agent

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"chandler/agent/cmlog"
	"chandler/agent/execute"
	"chandler/agent/msilog"
	"chandler/events"
)

// Levels of log lines.
const (
	info    = cmlog.Info
	warning = cmlog.Warning
	failure = cmlog.Error
)

var levelNames = map[cmlog.Type]string{info: "info", warning: "warning", failure: "error"}

// say writes one line about the job into the job log of this kind of client and sends the same line as part of the job's log.
func (t *task) say(level cmlog.Type, format string, args ...any) {
	t.line(level, executionManager, fmt.Sprintf(format, args...))
}

func (t *task) line(level cmlog.Type, component, text string) {
	now := t.a.Clock()
	entry := cmlog.Entry{Time: now, Component: component, Type: level, Context: t.job.Offer.Job, Text: text}
	if err := t.a.jobLogs.write(t.facts.ClientKind, entry); err != nil {
		t.a.log.Warn("log line not written", "error", err)
	}
	t.a.reporter.Line(t.ref(), events.LogLine{At: now.UTC(), Level: levelNames[level], Component: component, Text: entry.Clean().Text})
}

// Bounds of the program's output in the log.
const (
	outputLines = 200
	outputBytes = 20 << 10 // a byte that is no text becomes three in an entry, whose end must not be cut
)

// sayOutput puts the end of the program's output into the log.
func (t *task) sayOutput(path string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > outputBytes {
		if _, err := f.Seek(-outputBytes, 2); err != nil {
			return
		}
	}
	var lines []string
	scan := bufio.NewScanner(f)
	scan.Buffer(make([]byte, 4096), outputBytes+1)
	for scan.Scan() {
		if lines = append(lines, strings.ToValidUTF8(scan.Text(), "\uFFFD")); len(lines) > outputLines {
			lines = lines[1:]
		}
	}
	if len(lines) > 0 {
		t.line(info, programOutput, strings.Join(lines, "\n"))
	}
}

// sayWho writes whose account runs the program, and what it is raised to for that.
func (t *task) sayWho(x *execute.Execution) {
	who := x.Executor()
	if to := x.ElevatedTo(); to != "" {
		who += ", elevated to " + to
	}
	t.say(info, "Program %s runs as %s; its content was read by %s", stepName(t.part()), who, orDefault(t.job.Work.Reader, "nobody, as it has none"))
	if note := x.Note(); note != "" {
		t.say(warning, "%s", note)
	}
}

// installerLogBytes bounds what the log of an installer adds to that of its job.
const installerLogBytes = 16 << 10

// sayInstallerLog puts what matters of the log that a failed program wrote into the job's, and gives the sentence that
// explains the failure; "": there is none.
func (t *task) sayInstallerLog(path string) (explanation string) {
	if path == "" {
		return ""
	}
	report, err := msilog.Read(path, installerLogBytes)
	if err != nil {
		t.say(warning, "The program's log is not read: %v", err)
		return ""
	}
	if len(report.Lines) > 0 {
		t.line(info, programOutput, "From the program's log:\n"+strings.Join(report.Lines, "\n"))
	}
	return report.Explanation
}

// pass enters a state on the way, unless the job is in it already (after a restart of the agent).
func (t *task) pass(ctx context.Context, state events.State, d status) {
	last := t.job.Last
	if last.State == state && last.Attempt == t.job.Offer.Attempt && last.WaitingFor == d.waitingFor && last.Explanation == d.explanation && last.Step == t.stepName() {
		return
	}
	if state == events.Accepted && last.Attempt == t.job.Offer.Attempt && last.Transition > 0 {
		return
	}
	if state == events.Waiting {
		t.say(info, "Waiting for %s: %s", d.waitingFor, orDefault(d.explanation, "no more is known"))
	}
	t.enter(ctx, state, events.NoReason, d)
}

// tell writes how an attempt ended into the log.
func (t *task) tell(e *ending) {
	level := failure
	switch e.state {
	case events.Succeeded, events.WillNotRerun:
		level = info
	case events.Cancelled, events.Expired, events.Retrying:
		level = warning
	}
	text := fmt.Sprintf("Job %s of deployment %s attempt %d: %s", t.job.Offer.Job, t.deployment, t.job.Offer.Attempt, e.state)
	if e.reason != events.NoReason {
		text += fmt.Sprintf(" (%s)", e.reason)
	}
	if e.detail.explanation != "" {
		text += ": " + e.detail.explanation
	}
	if e.detail.retryAt != nil {
		text += "; tried again not before " + e.detail.retryAt.Format("15:04:05 MST")
	}
	t.line(level, executionManager, text)
}
