package backup

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"chandler/events"
)

// openTime bounds the opening of a store.
const openTime = 10 * time.Minute

// Offline is a broker that nobody can reach, over what another broker stored or will. Its one account has the
// name of the fleet's, so that the streams lie where that one looks for them.
type Offline struct {
	Conn    *nats.Conn // may do everything
	server  *server.Server
	account *server.Account
}

// Open starts a broker on a store directory that no other uses.
func Open(ctx context.Context, dir, account string, log *slog.Logger) (*Offline, error) {
	acc := server.NewAccount(account)
	user := &server.User{Username: "offline", Password: rand.Text(), Account: acc}
	options := &server.Options{ServerName: "offline", DontListen: true, NoSigs: true, NoLog: log == nil, JetStream: true, StoreDir: dir,
		JetStreamMaxStore: math.MaxInt64 / 4, JetStreamMaxMemory: 64 << 20, MaxPayload: events.MaxPayload, DisableJetStreamBanner: true,
		Accounts: []*server.Account{acc}, Users: []*server.User{user}}
	if account == GlobalAccount {
		options.Accounts, options.Users, user.Account = nil, nil, nil
	}
	s, err := server.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("open the streams in %s: %w", dir, err)
	}
	if log != nil {
		s.SetLoggerV2(quiet{log.With("component", "broker")}, false, false, false)
	}
	o := &Offline{server: s}
	if err := o.start(ctx, account, user); err != nil {
		o.Close()
		return nil, fmt.Errorf("open the streams in %s: %w", dir, err)
	}
	return o, nil
}

func (o *Offline) start(ctx context.Context, account string, user *server.User) (err error) {
	o.server.Start() // also where nobody waits any more: nothing may write there after this process says that it has stopped
	if err := ctx.Err(); err != nil {
		return err
	}
	if !o.server.JetStreamEnabled() {
		return errors.New("the store cannot be opened")
	}
	if o.account, err = o.server.LookupAccount(account); err != nil {
		return err
	}
	if account != GlobalAccount {
		if err := o.account.EnableJetStream(nil, nil); err != nil {
			return err
		}
	}
	connect := []nats.Option{nats.InProcessServer(o.server), nats.Timeout(openTime)}
	if account != GlobalAccount {
		connect = append(connect, nats.UserInfo(user.Username, user.Password))
	}
	o.Conn, err = nats.Connect("", connect...)
	return err
}

// Close returns when everything is on the disk.
func (o *Offline) Close() {
	if o.Conn != nil {
		o.Conn.Close()
	}
	o.server.Shutdown()
	o.server.WaitForShutdown()
}

// quiet passes on what is wrong.
type quiet struct{ log *slog.Logger }

func (l quiet) Noticef(string, ...any) {}
func (l quiet) Debugf(string, ...any)  {}
func (l quiet) Tracef(string, ...any)  {}
func (l quiet) Warnf(format string, v ...any) {
	l.log.Debug("broker warns", "text", fmt.Sprintf(format, v...))
}
func (l quiet) Errorf(format string, v ...any) {
	l.log.Error("broker reports an error", "text", fmt.Sprintf(format, v...))
}
func (l quiet) Fatalf(format string, v ...any) {
	l.log.Error("broker fails", "text", fmt.Sprintf(format, v...))
}
