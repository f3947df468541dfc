package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/events"
)

const (
	// pullExpiry ends a pull request that is not filled; it must be shorter than PinnedTTL, which counts from
	// the last request. pullHeartbeat tells a request that the broker forgot from one without messages.
	pullExpiry    = 6 * time.Second
	pullHeartbeat = time.Second
	// pullBytes bounds what one request brings, beside its number of messages: the broker ends a connection for which more
	// than its max_pending waits, and one agent may fill a request with the largest messages that there are.
	// Subject and reply count too, so that the largest message fits.
	pullBytes = events.MaxPayload + 64<<10
)

// puller asks for the messages of one consumer. It does what the client library's Fetch does, for two
// reasons. The library takes an empty message that has a header "Status" for the broker's own word: any
// agent could end or stall our readers with one. And only with a subscription of our own do we know that
// the broker has forgotten the last request, before we give back what it delivered.
type puller struct {
	conn     *nats.Conn
	subject  string // of pull requests
	inbox    string // answers to request n come to inbox.n
	sub      *nats.Subscription
	arriving chan *nats.Msg
	batch    int
	group    string // of a pinned consumer
	requests int
	pin      string // of the last message, if the consumer is pinned to us
}

// tooManyBytes is how the broker ends a request whose next message would exceed its bytes.
const tooManyBytes = "Message Size Exceeds MaxBytes"

// pullRequest is the body of a pull request.
type pullRequest struct {
	Batch     int           `json:"batch"`
	MaxBytes  int           `json:"max_bytes"`
	Expires   time.Duration `json:"expires"`
	Heartbeat time.Duration `json:"idle_heartbeat"`
	Group     string        `json:"group,omitempty"`
	Pin       string        `json:"id,omitempty"`
}

func (b *Bus) newPuller(stream, consumer string, batch int, group string) (*puller, error) {
	// Room for a request that is taken for lost and is not, and for heartbeats while we are busy.
	p := &puller{conn: b.conn, subject: b.api + "CONSUMER.MSG.NEXT." + stream + "." + consumer, inbox: b.conn.NewInbox(), batch: batch, group: group,
		arriving: make(chan *nats.Msg, 4*batch+64)}
	var err error
	if p.sub, err = b.conn.ChanSubscribe(p.inbox+".*", p.arriving); err != nil {
		return nil, fmt.Errorf("subscribe to deliveries of %s: %w", consumer, err)
	}
	return p, nil
}

// close ends the subscription, waits until the broker knows, and hands what arrived until then to take.
func (p *puller) close(take func(*delivery)) {
	// Unsubscribe alone would throw away what is on its way to us.
	_ = p.sub.Drain() // fails only if the connection is closed, as below
	settleConn(p.conn)
	_ = p.sub.Unsubscribe()
	for {
		select {
		case m := <-p.arriving:
			if d, err := newDelivery(p.conn, m); err == nil && !p.isStatus(m) {
				take(d)
			}
		default:
			return
		}
	}
}

// settleConn waits until the broker has taken all that was sent, if it is there: one that is away has
// forgotten our subscriptions, and a flush would wait for the answer to a ping that got lost.
func settleConn(conn *nats.Conn) {
	if conn.IsConnected() {
		_ = conn.FlushTimeout(graceTime)
	}
}

// isStatus tells the broker's own word about a request from a message of the stream, which comes with its
// own subject.
func (p *puller) isStatus(m *nats.Msg) bool { return strings.HasPrefix(m.Subject, p.inbox) }

var errSilent = errors.New("the broker does not answer the pull request")

// fetch makes one request, and hands what it brings to take until the request ends or take fails. It
// returns nil when ctx is done.
func (p *puller) fetch(ctx context.Context, take func(*delivery) error) error {
	if err := p.request(); err != nil {
		return err
	}
	silence := time.NewTimer(2 * pullHeartbeat)
	defer silence.Stop()
	for left := p.batch; left > 0; {
		select {
		case <-ctx.Done():
			return nil
		case <-silence.C:
			return errSilent
		case m := <-p.arriving:
			silence.Reset(2 * pullHeartbeat)
			if p.isStatus(m) {
				if over, err := p.status(m); over || err != nil {
					return err
				}
				continue
			}
			d, err := newDelivery(p.conn, m)
			if err != nil {
				return err
			}
			if pin := pinOf(m); p.group != "" && pin != "" {
				p.pin = pin
			}
			left--
			if err := take(d); err != nil {
				return err
			}
			silence.Reset(2 * pullHeartbeat) // take may have waited
		}
	}
	return nil
}

func (p *puller) request() error {
	p.requests++
	body, err := json.Marshal(pullRequest{Batch: p.batch, MaxBytes: pullBytes, Expires: pullExpiry, Heartbeat: pullHeartbeat, Group: p.group, Pin: p.pin})
	if err != nil {
		return err
	}
	return p.conn.PublishRequest(p.subject, p.reply(), body)
}

func (p *puller) reply() string { return p.inbox + "." + strconv.Itoa(p.requests) }

// status reads the broker's word about a request; over says that the present one brings no more.
func (p *puller) status(m *nats.Msg) (over bool, err error) {
	code, words := m.Header.Get("Status"), m.Header.Get("Description")
	switch {
	case code == "100": // a sign of life
		return false, nil
	case m.Subject != p.reply() && code != "503": // about a request that we have given up
		return false, nil
	case code == "404" || code == "408" || code == "409" && words == tooManyBytes:
		return true, nil
	case code == "423": // the consumer is pinned to another, or to nobody any more
		p.pin = ""
		return true, nil
	}
	return true, fmt.Errorf("pull request: %s %s", code, words)
}
