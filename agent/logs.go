package agent

import (
	"os"
	"path/filepath"
	"sync"

	"chandler/agent/cmlog"
	"chandler/events"
)

// jobLogs are the log files that administrators of the field know: execmgr.log of advanced clients, and
// SMSAPM32.log, in its older format, of legacy ones. A machine whose kind changes has both.
type jobLogs struct {
	dir  string
	mu   sync.Mutex
	open map[events.ClientKind]*cmlog.Log
}

func newJobLogs(stateDir string) *jobLogs {
	return &jobLogs{dir: filepath.Join(stateDir, "logs"), open: map[events.ClientKind]*cmlog.Log{}}
}

// of gives the log of a kind of client; it is made when it is first written.
func (l *jobLogs) of(kind events.ClientKind) (*cmlog.Log, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if log, ok := l.open[kind]; ok {
		return log, nil
	}
	name, options := "execmgr.log", cmlog.Options{}
	if kind == events.Legacy {
		name, options = "SMSAPM32.log", cmlog.Options{Format: cmlog.Legacy}
	}
	log, err := cmlog.Open(filepath.Join(l.dir, name), options)
	if err == nil {
		l.open[kind] = log
	}
	return log, err
}

// write adds an entry. What speaks is named as in the original: legacy clients have one component, and name its
// part in front of the text.
func (l *jobLogs) write(kind events.ClientKind, e cmlog.Entry) error {
	log, err := l.of(kind)
	if err != nil {
		return err
	}
	e.Thread = os.Getpid()
	if kind == events.Legacy {
		part := "SCHED DATA"
		switch e.Component {
		case accountManager:
			part = "ACCOUNT MGR"
		case programOutput:
			part = "OUTPUT"
		}
		if e.Context != "" {
			part += " : job " + e.Context // the format has no place of its own for it
		}
		e.Component, e.Text = "APM", part+" : "+e.Text
	}
	return log.Write(e)
}

func (l *jobLogs) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, log := range l.open {
		log.Close()
	}
}

// Components of log lines.
const (
	executionManager = "execmgr"
	accountManager   = "accountmgr"
	programOutput    = "output"
)
