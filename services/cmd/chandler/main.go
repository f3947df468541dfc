// Command chandler is the administrator's tool, every service, and the whole of them in one process.
//
// It promises: what it prints on standard output is the answer, in the form asked for with -o; progress
// and questions go to standard error. A command that fails says what was tried, what answered, and what
// to do next, and exits with 1; `deployment watch` tells outcomes apart by 2 (partly failed) and 3
// (stopped). Nothing is changed on the way to an error that the error does not name, and every request
// can be made again: a create whose answer was lost is found by `deployment show`. Secrets are read from
// a terminal, a file or standard input, and are never arguments.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"chandler/services/daemon"
)

func main() {
	if err := daemon.KeepMemoryPrivate(); err != nil {
		fmt.Fprintln(os.Stderr, "note: secrets in memory may end in a core dump:", err)
	}
	ctx, stop := daemon.UntilSignal(context.Background())
	code := newApp().run(ctx, streams{os.Stdin, os.Stdout, os.Stderr}, os.Args[1:])
	stop()
	os.Exit(code)
}

// groups is the table of commands; a further group is one more line.
func groups(a *app) []*cobra.Command {
	return []*cobra.Command{
		newUp(a), newServe(a), newLeaf(a), newContext(a),
		newPackage(a), newCollection(a), newDeployment(a), newLimits(a), newSignal(a), newFreeze(a), newUnfreeze(a),
		newApply(a), newDiff(a), newExport(a),
		newAgent(a), newWhy(a), newJob(a), newTrust(a), newToken(a), newUser(a), newAccount(a), newLease(a),
		newEvents(a), newDoctor(a), newBackup(a), newRestore(a), newOperator(a),
		newDemo(a), newSimulate(a), newVersion(a), newSupervise(),
	}
}
