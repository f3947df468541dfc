package logon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/shirou/gopsutil/v4/host"

	"chandler/agent/account"
)

// System knows the user at the console.
func System() Driver { return console{} }

type console struct{}

// List takes the owner of the console for the user at it; root owns it while the login window is shown.
func (console) List(ctx context.Context) ([]Session, error) {
	info, err := os.Stat("/dev/console")
	if err != nil {
		return nil, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, errors.New("the owner of the console is not known")
	}
	if stat.Uid == 0 {
		return nil, nil
	}
	found, err := account.LookupUID(ctx, stat.Uid)
	var unusable *account.Unusable
	if err != nil && !errors.As(err, &unusable) { // who is at the console is logged on all the same
		return nil, fmt.Errorf("find the user at the console: %w", err)
	}
	s := Session{User: found.Name, UID: stat.Uid, Type: "console", Seat: "seat0", Active: true}
	if s.Since, err = since(ctx, s.User); err != nil {
		return nil, fmt.Errorf("find the time of the logon at the console: %w", err)
	}
	s.ID = fmt.Sprintf("console:%d:%d", s.UID, s.Since.Unix())
	return []Session{s}, nil
}

func since(ctx context.Context, user string) (time.Time, error) {
	all, err := host.UsersWithContext(ctx)
	if err != nil {
		return time.Time{}, err
	}
	for _, one := range all {
		if one.User == user && one.Terminal == "console" {
			return time.Unix(int64(one.Started), 0).UTC(), nil
		}
	}
	return time.Time{}, nil
}

// Watch has nobody to listen to.
func (console) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

// LogOff ends the user's graphical domain, with all programs in it.
func (console) LogOff(ctx context.Context, session Session) error {
	cmd := exec.CommandContext(ctx, "/bin/launchctl", "bootout", "gui/"+strconv.FormatUint(uint64(session.UID), 10))
	cmd.Env, cmd.WaitDelay = []string{}, time.Second
	if answer, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("launchctl: %w: %s", err, bytes.TrimSpace(answer))
	}
	return nil
}
