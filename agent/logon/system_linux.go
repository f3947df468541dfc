package logon

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// The system bus is where its specification says, whatever the environment of the agent's starter says.
const systemBus = "unix:path=/var/run/dbus/system_bus_socket"

// System asks logind, or utmp on machines without logind.
func System() Driver {
	return &system{logind: &logind{address: systemBus}, utmp: &utmp{file: "/run/utmp", devices: "/dev"}, trace: "/run/systemd/seats"}
}

type system struct {
	logind *logind
	utmp   *utmp
	trace  string // is there once a logind has run since the start of the machine
}

func (s *system) List(ctx context.Context) ([]Session, error) {
	sessions, err := s.logind.List(ctx)
	if !s.withoutLogind(err) {
		return sessions, err
	}
	sessions, fallback := s.utmp.List(ctx)
	if errors.Is(fallback, os.ErrNotExist) {
		return nil, fmt.Errorf("nothing on this machine tells who is logged on: there is neither logind (%w) nor %s", err, s.utmp.file)
	}
	return sessions, fallback
}

// withoutLogind says that an answer of logind means that there is none on this machine, rather than none just now.
func (s *system) withoutLogind(err error) bool {
	if !errors.Is(err, errNoLogind) {
		return false
	}
	_, err = os.Stat(s.trace)
	return errors.Is(err, os.ErrNotExist)
}

func (s *system) Watch(ctx context.Context, changed func()) error {
	return s.logind.Watch(ctx, changed)
}

func (s *system) LogOff(ctx context.Context, session Session) error {
	if isUtmp(session) {
		return s.utmp.LogOff(ctx, session)
	}
	return s.logind.LogOff(ctx, session)
}
