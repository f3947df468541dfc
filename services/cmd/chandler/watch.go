package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
)

// watchPause is the time between two looks at a deployment.
const watchPause = time.Second

func deploymentWatch(a *app) *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use: "watch NAME", Short: "Follow a deployment until every job of it has ended", Args: cobra.ExactArgs(1),
		Long: `Follows a deployment until every machine in its target has ended its job. Exit codes: 0 all succeeded
(or had nothing to do), 2 some failed, 3 the deployment was stopped, or its rollout is halted and nothing of it runs
any more.

Where nobody is in the target it ends at once with 0, unless --wait is given: then it waits for the first
machine that comes into it.`,
		ValidArgsFunction: a.completeArguments(completeDeployments),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			return a.watch(cmd, c, args[0], wait)
		}),
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "where nobody is in the target, wait for somebody")
	return cmd
}

// watch looks again and again; each look that differs from the one before is shown. A service that does
// not answer for a while is waited for.
func (a *app) watch(cmd *cobra.Command, c *client, name string, wait bool) error {
	if err := a.only(formTable, formWide, formJSON, formYAML); err != nil {
		return err
	}
	show := a.watchView(cmd)
	var last string
	for {
		view, err := look(cmd.Context(), c, name)
		switch {
		case errors.Is(err, bus.ErrNotFound) || errors.Is(err, bus.ErrBadRequest):
			return err
		case err != nil:
			if cmd.Context().Err() == nil && last != err.Error() {
				last = err.Error()
				note(cmd.ErrOrStderr(), "watching goes on: %v", err)
			}
		default:
			if text := a.watchLine(view); text != last {
				last = text
				if err := show(view); err != nil {
					return err
				}
			}
			if done, outcome := watchOutcome(view); done {
				return outcome
			}
			if !wait && nobodyMeant(view) {
				note(cmd.ErrOrStderr(), "Nobody is in the target now. Machines that come into it later are released; --wait waits for them.")
				return nil
			}
		}
		if !pause(cmd.Context(), watchPause) {
			return errors.New("stopped watching; the deployment goes on")
		}
	}
}

// look joins what scheduling and execution say of a deployment; execution's counts are the newer ones.
func look(ctx context.Context, c *client, name string) (events.DeploymentView, error) {
	view, err := ask(ctx, c, events.DeploymentShow, events.Named{Name: name})
	if err != nil {
		return view, err
	}
	counts, err := ask(ctx, c, events.ExecutionProgress, events.Named{Name: name})
	if err == nil && counts.Revision == view.Revision {
		view.Progress = &counts
	}
	if errors.Is(err, bus.ErrNotFound) { // nothing was released yet
		err = nil
	}
	return view, err
}

// tally sums up a deployment's jobs for its watcher.
type tally struct {
	succeeded int64 // or had nothing to do there
	failed    int64
	cancelled int64
	open      int64
}

// newTally sorts the states. A program that does not apply to a machine, or ran there before, is no failure.
func newTally(p events.Progress) tally {
	var t tally
	var notMeant int64
	for reason, n := range p.Reasons {
		if events.OutcomeOf(events.Rejected, reason) == events.OutcomeNotApplicable {
			notMeant += n
		}
	}
	for state, n := range p.States {
		switch state {
		case events.Succeeded, events.WillNotRerun:
			t.succeeded += n
		case events.Failed, events.Rejected, events.Expired:
			t.failed += n
		case events.Cancelled:
			t.cancelled += n
		default:
			t.open += n
		}
	}
	notMeant = min(notMeant, p.States[events.Rejected])
	t.failed -= notMeant
	t.succeeded += notMeant
	return t
}

// watchOutcome says whether there is nothing more to wait for, and the command's result then.
func watchOutcome(view events.DeploymentView) (done bool, outcome error) {
	var t tally
	var total int64
	if view.Progress != nil {
		t, total = newTally(*view.Progress), view.Progress.Total
	}
	missing := total < int64(view.Members) // machines that were not offered it
	switch {
	case view.Life == events.LifeStopped:
		return true, exitStopped
	case view.Life == events.LifeHalted && (view.Progress == nil || view.Progress.States[events.Running] == 0):
		return true, exitStopped // what was offered is held back until somebody resumes, skips or rolls back
	case t.open > 0:
		return false, nil
	case view.Life != events.LifeExpired && (total == 0 || missing):
		return false, nil
	case missing || t.failed+t.cancelled > 0:
		return true, exitPartlyFailed
	}
	return true, nil
}

// nobodyMeant says whether there is no machine to wait for.
func nobodyMeant(view events.DeploymentView) bool {
	return view.Members == 0 && view.Released == 0 && (view.Progress == nil || view.Progress.Total == 0)
}

// progressText is one line of the states that have jobs, in the order in which jobs pass through them.
func progressText(p events.Progress) string {
	var parts []string
	for _, s := range events.States() {
		if n := p.States[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", strings.ReplaceAll(string(s), "_", " "), count(n)))
		}
	}
	if p.Silent > 0 {
		parts = append(parts, "silent "+count(p.Silent))
	}
	return strings.Join(parts, " · ")
}

// reasonsText lists the reasons, the commonest first.
func reasonsText(p events.Progress) string {
	reasons := make([]events.Reason, 0, len(p.Reasons))
	for r, n := range p.Reasons {
		if n > 0 {
			reasons = append(reasons, r)
		}
	}
	slices.SortFunc(reasons, func(a, b events.Reason) int {
		return cmp.Or(cmp.Compare(p.Reasons[b], p.Reasons[a]), cmp.Compare(a, b))
	})
	var parts []string
	for _, r := range reasons {
		parts = append(parts, fmt.Sprintf("%s ×%s", r, count(p.Reasons[r])))
	}
	return strings.Join(parts, " · ")
}

func (a *app) watchLine(view events.DeploymentView) string {
	line := fmt.Sprintf("%s · of %s", view.Life, plural(view.Members, "machine", "machines"))
	if view.Progress != nil {
		line += " · " + progressText(*view.Progress)
		if reasons := reasonsText(*view.Progress); reasons != "" {
			line += " (" + reasons + ")"
		}
	}
	if phase := a.rolloutLine(view); phase != "" {
		line += " · " + phase
	}
	if view.Life == events.LifeHalted && view.Why != "" && !strings.Contains(line, a.localTimes(view.Why)) {
		line += " · halted: " + a.localTimes(view.Why)
	}
	return line
}

// watchView chooses how a look is shown: JSON lines, a table drawn again on a terminal, or lines.
func (a *app) watchView(cmd *cobra.Command) func(events.DeploymentView) error {
	out := cmd.OutOrStdout()
	switch {
	case !people(a.output):
		return func(view events.DeploymentView) error { return writeNext(out, a.output, view) }
	case a.output == formTable && a.isTerminal(out):
		table := &redrawn{w: out}
		return func(view events.DeploymentView) error { return table.draw(a.watchTable(view)) }
	}
	return func(view events.DeploymentView) error {
		note(out, "%s  %s", a.now().In(a.zone).Format(time.TimeOnly), a.watchLine(view))
		return nil
	}
}

// stateCount is a row of the redrawn table.
type stateCount struct {
	state string
	n     int64
	share float64
}

var stateColumns = listing[stateCount]{columns: []column[stateCount]{
	{"STATE", false, func(r stateCount) any { return r.state }},
	{"JOBS", false, func(r stateCount) any { return fmt.Sprintf("%8s", count(r.n)) }},
	{"", false, func(r stateCount) any { return strings.Repeat("█", int(r.share*40+0.5)) }},
}}

func (a *app) watchTable(view events.DeploymentView) string {
	head := fmt.Sprintf("%s  %s  %s to %s, %s", view.Deployment, view.Life, programText(view.DeploymentNotice), view.Collection, plural(view.Members, "machine", "machines"))
	if phase := a.rolloutLine(view); phase != "" {
		head += "\n" + phase
	}
	if view.Progress == nil || view.Progress.Total == 0 {
		return head + "\nno machine has been offered it yet"
	}
	var rows []stateCount
	for _, s := range events.States() {
		if n := view.Progress.States[s]; n > 0 {
			rows = append(rows, stateCount{strings.ReplaceAll(string(s), "_", " "), n, float64(n) / float64(view.Progress.Total)})
		}
	}
	text := head + "\n" + stateColumns.table(false, rows)
	if reasons := reasonsText(*view.Progress); reasons != "" {
		text += "\nreasons: " + reasons
	}
	return text
}

// redrawn writes a text over the one it wrote before.
type redrawn struct {
	w     io.Writer
	lines int
}

func (r *redrawn) draw(text string) error {
	up := ""
	if r.lines > 0 {
		up = fmt.Sprintf("\x1b[%dA\x1b[J", r.lines)
	}
	text = printable(text) + "\n"
	r.lines = strings.Count(text, "\n")
	_, err := io.WriteString(r.w, up+text)
	return err
}
