package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
)

func jobWhy(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "why JOB", Short: "Tell the story of a job: what happened, who tried what, what it answered", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeJobs),
		Long: `Tells each attempt of a job in order: what the machine said, which accounts were asked for and lent, who
tried which resource, what that answered, and what would fix it.`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			s, err := tellStory(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if s.Leases, err = leaseEvents(cmd.Context(), c, s.Job); err != nil {
				note(cmd.ErrOrStderr(), "WARNING: what was lent for it is not known: %v", err)
			}
			if a.output == formJSON || a.output == formYAML {
				return writeData(cmd.OutOrStdout(), a.output, s)
			}
			note(cmd.OutOrStdout(), "job %s: %s on %s%s", s.Job.Job, s.Job.Deployment, s.machine(), occurrenceText(s.Job.Occurrence))
			for _, line := range a.storyLines(s) {
				note(cmd.OutOrStdout(), "%s", line)
			}
			return nil
		}),
	}
}

// moment is a part of a story.
type moment struct {
	at      time.Time
	attempt int // 0: nobody says which
	lines   []string
}

// storyLines are the transitions in order, with everything that was said about each, between them what became of accounts,
// and at the end what to do.
func (a *app) storyLines(s story) []string {
	t := newTelling(s.last(), s.Job.State, s.Statuses)
	var moments []moment
	var before events.JobStatus // of the same attempt: what is as it was is not said again
	for _, st := range s.Statuses {
		if st.Attempt != before.Attempt {
			before = events.JobStatus{}
		}
		moments = append(moments, moment{st.At, st.Attempt, a.statusLines(st, before, t)})
		before = st
	}
	if len(s.Statuses) == 0 {
		moments = []moment{{s.Job.Changed, 0, []string{stateText(s.Job) + "; the agent has not said anything about it that is still stored"}}}
	}
	for _, e := range s.Leases {
		if !told(e, s.Statuses) {
			moments = insert(moments, moment{e.at(), e.attempt(), []string{a.leaseText(e, t)}})
		}
	}
	var lines []string
	attempt := 0
	for _, m := range moments {
		if m.attempt != attempt && m.attempt != 0 {
			attempt = m.attempt
			lines = append(lines, fmt.Sprintf("attempt %d", attempt))
		}
		lines = append(lines, "  "+a.longTime(m.at)+"  "+indented(m.lines[0]))
		for _, line := range m.lines[1:] {
			lines = append(lines, "      "+indented(line))
		}
	}
	return append(t.once(lines), adviceLines(t.advised, s.Job)...)
}

// last is what the agent said last; where it said nothing, what execution knows.
func (s story) last() events.JobStatus {
	if len(s.Statuses) == 0 {
		return events.JobStatus{State: s.Job.State, Reason: s.Job.Reason}
	}
	return s.Statuses[len(s.Statuses)-1]
}

// insert puts a moment where its time says, within its attempt. Moments that are there already keep their order: it is that
// of the agent's journal, and clocks differ.
func insert(moments []moment, m moment) []moment {
	at := len(moments)
	for i, other := range moments {
		later := other.at.After(m.at)
		if m.attempt != 0 && other.attempt != 0 && other.attempt != m.attempt {
			later = other.attempt > m.attempt
		}
		if later {
			at = i
			break
		}
	}
	if m.attempt == 0 && at > 0 {
		m.attempt = moments[at-1].attempt
	}
	return slices.Insert(moments, at, m)
}

// indented keeps the lines of what others said apart from those of the story.
func indented(text string) string { return strings.ReplaceAll(text, "\n", "\n        ") }

// statusLines are one transition, and what is new since the one before.
func (a *app) statusLines(s, before events.JobStatus, t telling) []string {
	lines := []string{statusText(s)}
	for _, access := range s.Accesses {
		if slices.Contains(before.Accesses, access) {
			continue
		}
		if text := t.access(access, s.Attempt, lines[0]); text != "" {
			lines = append(lines, text)
		}
	}
	for _, f := range slices.Concat(triedFields(s), whoFields(s, before)) {
		if f.value != "" {
			lines = append(lines, fmt.Sprintf("%s: %s", f.name, f.value))
		}
	}
	if s.RetryAt != nil {
		lines = append(lines, "tried again after "+a.longTime(*s.RetryAt))
	}
	return lines
}

// whoFields say who read and who ran, as far as that is not as it was before.
func whoFields(s, before events.JobStatus) (fields []field) {
	for _, f := range []struct{ name, now, before string }{
		{"read by", s.Reader, before.Reader}, {"run by", s.Executor, before.Executor}, {"elevated to", s.ElevatedTo, before.ElevatedTo},
	} {
		if f.now != f.before {
			fields = append(fields, field{f.name, f.now})
		}
	}
	return fields
}

// statusText is one transition in a line.
func statusText(s events.JobStatus) string {
	text := strings.ReplaceAll(string(s.State), "_", " ")
	if s.Step != "" {
		text += ", " + s.Step + " first"
	}
	if s.WaitingFor != "" {
		text += " for " + strings.ReplaceAll(string(s.WaitingFor), "_", " ")
	}
	if s.Reason != "" {
		text += ": " + string(s.Reason)
	}
	if code := fmt.Sprintf("exit code %s", exitCodeText(s.ExitCode)); s.ExitCode != nil && !strings.Contains(s.Explanation, code) {
		text += ", " + code
	}
	if s.Explanation != "" {
		text += ": " + readable(s.Explanation)
	}
	return text
}

// triedFields say who tried what, and what that answered, as far as neither the status' own words nor its accesses say it.
func triedFields(s events.JobStatus) []field {
	if slices.ContainsFunc(s.Accesses, func(access events.Access) bool { return access.Resource == s.Resource && access.Reason == s.Reason }) {
		return nil
	}
	said := statusText(s)
	fields := []field{{"who tried", s.Identity}}
	for _, f := range []struct{ name, text string }{{"what", s.Resource}, {"which answered", s.Answer}} {
		if text := readable(f.text); !strings.Contains(said, text) {
			fields = append(fields, field{f.name, text})
		}
	}
	return fields
}

// adviceLines say it, with the names of the job in the commands.
func adviceLines(text string, job events.JobRow) []string {
	if text == "" {
		return nil
	}
	named := strings.NewReplacer("chandler job logs", "chandler job logs "+jobCell(job.Job).text, "chandler deployment retry", "chandler deployment retry "+job.Deployment,
		"chandler agent show", "chandler agent show "+job.Agent, "`chandler why`", "`chandler why "+job.Agent+" "+job.Deployment+"`")
	return []string{"advice: " + named.Replace(text)}
}
