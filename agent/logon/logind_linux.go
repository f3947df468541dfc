package logon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	login1       = "org.freedesktop.login1"
	login1Path   = dbus.ObjectPath("/org/freedesktop/login1")
	maxSessions  = 4096
	connectLimit = 5 * time.Second
	// openingLook is between looks at a session that is being opened: logind tells of it then, and not once it is open.
	openingLook = 200 * time.Millisecond
)

const stateOpening = "opening"

// errNoLogind says that there is no system bus, or nothing on it that answers as logind.
var errNoLogind = errors.New("no logind on the system bus")

// logind keeps one connection to the bus, for as long as the bus does.
type logind struct {
	address string
	opening atomic.Bool // the last List passed over a session that is being opened

	mu   sync.Mutex
	conn *dbus.Conn
}

// bus connects unless there is a connection that lives.
func (l *logind) bus(ctx context.Context) (*dbus.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil && l.conn.Connected() {
		return l.conn, nil
	}
	conn, err := connect(ctx, l.address)
	if err != nil {
		return nil, err
	}
	l.conn = conn
	return conn, nil
}

// connect does not wait longer than ctx allows, nor than connectLimit, for a bus that accepts and says nothing.
func connect(ctx context.Context, address string) (*dbus.Conn, error) {
	conn, err := dbus.Dial(address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoLogind, err)
	}
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err = conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))})
	if err == nil {
		err = conn.Hello()
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to the system bus: %w", errors.Join(err, ctx.Err()))
	}
	return conn, nil
}

// call turns the bus's words for "nobody has that name" into errNoLogind.
func (l *logind) call(ctx context.Context, path dbus.ObjectPath, method string, args ...any) (*dbus.Call, error) {
	conn, err := l.bus(ctx)
	if err != nil {
		return nil, err
	}
	call := conn.Object(login1, path).CallWithContext(ctx, method, 0, args...)
	if absent(call.Err) {
		return nil, fmt.Errorf("%w: %w", errNoLogind, call.Err)
	}
	return call, call.Err
}

// absent says that nobody has the name of logind and that nobody could be started who would.
func absent(err error) bool {
	name := errorName(err)
	return name == "org.freedesktop.DBus.Error.ServiceUnknown" || name == "org.freedesktop.DBus.Error.NameHasNoOwner" ||
		strings.HasPrefix(name, "org.freedesktop.DBus.Error.Spawn.")
}

func errorName(err error) string {
	var said dbus.Error
	if errors.As(err, &said) {
		return said.Name
	}
	return ""
}

// listed is what ListSessions says of one.
type listed struct {
	ID   string
	UID  uint32
	User string
	Seat string
	Path dbus.ObjectPath
}

func (l *logind) List(ctx context.Context) ([]Session, error) {
	call, err := l.call(ctx, login1Path, login1+".Manager.ListSessions")
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	var all []listed
	if err := call.Store(&all); err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	if len(all) > maxSessions {
		return nil, fmt.Errorf("logind lists %d sessions, over the limit of %d", len(all), maxSessions)
	}
	var sessions []Session
	opening := false
	for _, one := range all {
		call, err := l.call(ctx, one.Path, "org.freedesktop.DBus.Properties.GetAll", login1+".Session")
		if slices.Contains([]string{"org.freedesktop.DBus.Error.UnknownObject", login1 + ".NoSuchSession"}, errorName(err)) {
			continue // it ended meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("look at session %s: %w", one.ID, err)
		}
		var properties map[string]dbus.Variant
		if err := call.Store(&properties); err != nil {
			return nil, fmt.Errorf("look at session %s: %w", one.ID, err)
		}
		opening = opening || get[string](properties, "State") == stateOpening
		if s, of := sessionOf(one, properties); of {
			sessions = append(sessions, s)
		}
	}
	l.opening.Store(opening)
	return sessions, nil
}

// sessionOf gives false for what is no user's logon: greeters, lock screens, services, user managers, and sessions that
// have ended but for a program that was left behind.
func sessionOf(one listed, properties map[string]dbus.Variant) (Session, bool) {
	class, state := get[string](properties, "Class"), get[string](properties, "State")
	if !isUsers(class) || state == "closing" || state == stateOpening || one.User == "" {
		return Session{}, false
	}
	s := Session{
		ID: one.ID, User: one.User, UID: one.UID, Seat: one.Seat,
		Type: get[string](properties, "Type"), Display: get[string](properties, "Display"),
		Leader: int(get[uint32](properties, "Leader")), Remote: get[bool](properties, "Remote"), Active: get[bool](properties, "Active"),
	}
	if since := get[uint64](properties, "Timestamp"); since != 0 {
		s.Since = time.UnixMicro(int64(since)).UTC()
	}
	return s, true
}

// isUsers knows the newer classes too: root's logon is user-early since systemd 256. A user-incomplete one is not there yet.
func isUsers(class string) bool {
	switch class {
	case "user", "user-early", "user-light", "user-early-light":
		return true
	}
	return false
}

// get is the zero value for a property that is missing or of another type.
func get[T any](properties map[string]dbus.Variant, name string) T {
	value, _ := properties[name].Value().(T)
	return value
}

// Watch listens to all that logind says, and to its coming and going. It ends the connection when it ends.
func (l *logind) Watch(ctx context.Context, changed func()) error {
	conn, err := l.bus(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	signals := make(chan *dbus.Signal, 16)
	conn.Signal(signals)
	asking, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	for _, rule := range [][]dbus.MatchOption{
		{dbus.WithMatchSender(login1), dbus.WithMatchPathNamespace(login1Path)},
		{dbus.WithMatchSender("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, login1)},
	} {
		if err := conn.AddMatchSignalContext(asking, rule...); err != nil {
			return fmt.Errorf("listen to logind: %w", err)
		}
	}
	changed() // what happened before this listened
	again := time.NewTimer(openingLook)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			if l.opening.Load() {
				changed()
				again.Reset(openingLook)
			}
		case <-conn.Context().Done():
			return errors.New("the system bus has ended the connection")
		case signal, open := <-signals:
			// The bus also greets whoever connects.
			if open && (signal.Sender != "org.freedesktop.DBus" || strings.HasSuffix(signal.Name, ".NameOwnerChanged")) {
				changed()
				again.Reset(openingLook) // by then this look has told whether one is being opened
			}
		}
	}
}

func (l *logind) LogOff(ctx context.Context, session Session) error {
	_, err := l.call(ctx, login1Path, login1+".Manager.TerminateSession", session.ID)
	if errorName(err) == login1+".NoSuchSession" {
		return nil
	}
	return err
}
