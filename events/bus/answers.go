package bus

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// answers is a subscription to what the store says about the messages of one pipeline, by number. Pipelines come and
// go by the batch, so the bus lends them the same few ones again and again: the broker, and all brokers behind it,
// need not hear of each. Numbers go on, so that an answer to a former pipeline is recognised as such.
type answers struct {
	prefix   string // of the subjects that answers come to, up to the number
	sub      *nats.Subscription
	arriving chan *nats.Msg
	next     uint64 // number of the next message
}

// takeAnswers lends one that no other pipeline uses.
func (b *Bus) takeAnswers() (*answers, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := len(b.idle) - 1; last >= 0 {
		a := b.idle[last]
		b.idle = b.idle[:last]
		if a.sub.IsValid() {
			return a, nil
		}
		b.idle = nil // the connection was closed
	}
	inbox := b.conn.NewInbox()
	// Room for the answers to a whole window, each given twice.
	a := &answers{prefix: inbox + ".", arriving: make(chan *nats.Msg, 2*b.window)}
	var err error
	if a.sub, err = b.conn.ChanSubscribe(inbox+".*", a.arriving); err != nil {
		return nil, err
	}
	return a, nil
}

func (b *Bus) giveAnswers(a *answers) {
	for len(a.arriving) > 0 {
		<-a.arriving
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.idle = append(b.idle, a)
}

func (a *answers) subject(number uint64) string {
	room := make([]byte, 0, len(a.prefix)+20)
	return string(strconv.AppendUint(append(room, a.prefix...), number, 10))
}

func (a *answers) number(subject string) (uint64, bool) {
	if len(subject) <= len(a.prefix) {
		return 0, false
	}
	n, err := strconv.ParseUint(subject[len(a.prefix):], 10, 64)
	return n, err == nil
}

// readAck reads what the store says about one message.
func readAck(m *nats.Msg) (duplicate bool, err error) {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return false, jetstream.ErrNoStreamResponse
	}
	if isPlainAck(m.Data) {
		return false, nil
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
		jetstream.PubAck
	}
	switch err := json.Unmarshal(m.Data, &answer); {
	case err != nil:
		return false, jetstream.ErrInvalidJSAck
	case answer.Error != nil:
		return false, answer.Error
	case answer.Stream == "":
		return false, jetstream.ErrInvalidJSAck
	}
	return answer.Duplicate, nil
}

// isPlainAck knows the usual answer, {"stream":"STATUS","seq":12}, without reflection.
func isPlainAck(data []byte) bool {
	rest, ok := bytes.CutPrefix(data, []byte(`{"stream":"`))
	if !ok {
		return false
	}
	name, rest, ok := bytes.Cut(rest, []byte(`","seq":`))
	if !ok || len(name) == 0 || bytes.IndexByte(name, '"') >= 0 || len(rest) < 2 || rest[len(rest)-1] != '}' {
		return false
	}
	for _, c := range rest[:len(rest)-1] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
