package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/shirou/gopsutil/v4/disk"

	"chandler/events"
)

const (
	// syncInterval of the broker's files: what was stored may be lost in a power cut for so long. Agents
	// keep what they reported for longer and tell it again.
	syncInterval = 10 * time.Second
	// storeShare is the part of the free disk that the streams may fill together.
	storeShare = 0.5
)

// broker is a nats-server in this process.
type broker struct {
	server *natsserver.Server
	scale  float64
}

// startBroker keeps its files in dir and listens on host:port. It gives up when ctx ends: opening a large
// store takes a while.
func startBroker(ctx context.Context, dir, listen string, log *slog.Logger) (*broker, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, fmt.Errorf("broker: address %q is not host:port: %w", listen, err)
	}
	number, err := strconv.Atoi(port)
	if err != nil || number < 0 || number > 65535 {
		return nil, fmt.Errorf("broker: port %q is not a number up to 65535", port)
	}
	if number == 0 {
		number = natsserver.RANDOM_PORT
	}
	if err := checkListen("broker", listen); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("broker: make directory: %w", err)
	}
	usage, err := disk.Usage(dir)
	if err != nil {
		return nil, fmt.Errorf("broker: ask for the free space of %s: %w", dir, err)
	}
	scale, store := streamSizes(usage.Free)
	server, err := natsserver.NewServer(&natsserver.Options{
		ServerName: "chandler", Host: host, Port: number, JetStream: true, StoreDir: dir, JetStreamMaxStore: store,
		SyncInterval: syncInterval, MaxPayload: events.MaxPayload, NoSigs: true,
	})
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	server.SetLoggerV2(brokerLog{log.With("component", "broker")}, false, false, false)
	b := &broker{server, scale}
	if err := b.start(ctx, listen); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// start opens the store and waits until the broker takes connections. When ctx ends, the opening of the
// store is waited for all the same: nothing may write there after this process says that it has stopped.
func (b *broker) start(ctx context.Context, listen string) error {
	started, ready := make(chan struct{}), make(chan bool, 1)
	go func() {
		b.server.Start()
		close(started)
		ready <- b.server.ReadyForConnections(30 * time.Second)
	}()
	select {
	case <-ctx.Done():
		<-started
		return fmt.Errorf("broker: start: %w", ctx.Err())
	case ok := <-ready:
		if !ok {
			return fmt.Errorf("broker: it does not listen on %s: see the log above", listen)
		}
	}
	if !b.server.JetStreamEnabled() {
		return errors.New("broker: its store could not be opened; see the log above")
	}
	return nil
}

// streamSizes fits the declared sizes of the streams to the free disk. The store's own limit is given
// wide, because the broker reserves the streams' sizes and would refuse what it made before once the disk
// has less free space.
func streamSizes(free uint64) (scale float64, store int64) {
	var declared int64
	for _, s := range events.Streams() {
		declared += s.MaxBytes
	}
	return min(1, storeShare*float64(free)/float64(declared)), 2 * declared
}

func (b *broker) url() string { return localURL(b.server.ClientURL()) }

// sizeScale is that of an embedded broker; one that runs elsewhere has the declared sizes.
func (b *broker) sizeScale() float64 {
	if b == nil {
		return 1
	}
	return b.scale
}

// close stops the broker in order; nil has nothing to stop.
func (b *broker) close() {
	if b == nil {
		return
	}
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

// brokerLog passes on what an operator acts on; the broker's notices are debugging to us.
type brokerLog struct{ log *slog.Logger }

func (l brokerLog) Noticef(format string, v ...any) {
	l.log.Debug("broker notice", "text", fmt.Sprintf(format, v...))
}
func (l brokerLog) Warnf(format string, v ...any) {
	l.log.Warn("broker warns", "text", fmt.Sprintf(format, v...))
}
func (l brokerLog) Fatalf(format string, v ...any) {
	l.log.Error("broker fails", "text", fmt.Sprintf(format, v...))
}
func (l brokerLog) Errorf(format string, v ...any) {
	l.log.Error("broker reports an error", "text", fmt.Sprintf(format, v...))
}
func (l brokerLog) Debugf(string, ...any) {}
func (l brokerLog) Tracef(string, ...any) {}
