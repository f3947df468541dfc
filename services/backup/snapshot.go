package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/archive"
	"github.com/nats-io/nats.go"

	"chandler/events"
)

const (
	// A copy comes in parts of chunkSize bytes, of which windowSize may be on their way.
	chunkSize  = 128 << 10
	windowSize = 4 << 20
	// stall is how long the broker may be silent: it reads from its disk.
	stall = 30 * time.Second
	// maxState bounds the state that begins a copy: it names every deleted message range at most.
	maxState = 16 << 20
	// maxMessage bounds a message in a copy, with its headers: a broker that restores it believes the size that it is
	// told. Far more than any of ours has.
	maxMessage = 8 * events.MaxPayload
)

// snapshot has the broker copy a stream, without its readers, and writes the copy to w. Each part is
// acknowledged after it was written, so that a slow disk slows the broker.
func snapshot(ctx context.Context, nc *nats.Conn, name string, w io.Writer) (Stream, error) {
	s := Stream{Name: name}
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return s, fmt.Errorf("copy stream %s: %w", name, err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := sub.SetPendingLimits(-1, 4*windowSize); err != nil {
		return s, fmt.Errorf("copy stream %s: %w", name, err)
	}
	request, err := json.Marshal(server.JSApiStreamSnapshotRequest{DeliverSubject: inbox, NoConsumers: true, ChunkSize: chunkSize, WindowSize: windowSize})
	if err != nil {
		return s, err
	}
	asking, cancel := context.WithTimeout(ctx, stall)
	defer cancel()
	m, err := nc.RequestWithContext(asking, fmt.Sprintf(server.JSApiStreamSnapshotT, name), request)
	if err != nil {
		return s, fmt.Errorf("ask for a copy of stream %s: %w", name, err)
	}
	var answer struct {
		Error  *server.ApiError    `json:"error"`
		Config json.RawMessage     `json:"config"`
		State  *server.StreamState `json:"state"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return s, fmt.Errorf("ask for a copy of stream %s: %w", name, err)
	}
	if answer.Error != nil {
		return s, fmt.Errorf("the broker does not copy stream %s: %s", name, answer.Error.Description)
	}
	if answer.State == nil {
		return s, fmt.Errorf("the broker does not say what stream %s holds", name)
	}
	s.Config, s.Messages, s.Bytes, s.Last = answer.Config, answer.State.Msgs, answer.State.Bytes, answer.State.LastSeq
	if err := receive(ctx, sub, w); err != nil {
		return s, fmt.Errorf("copy stream %s: %w", name, err)
	}
	return s, nil
}

// receive writes the parts as they come. The last has nobody who waits for it, and after it comes an empty
// one, which says how it ended.
func receive(ctx context.Context, sub *nats.Subscription, w io.Writer) error {
	for index := 1; ; index++ {
		waiting, cancel := context.WithTimeout(ctx, stall)
		m, err := sub.NextMsgWithContext(waiting)
		cancel()
		if err != nil {
			return fmt.Errorf("wait for part %d: %w", index, err)
		}
		if len(m.Data) == 0 {
			if status := m.Header.Get("Status"); status != "" && status != "204" {
				return fmt.Errorf("the broker ended it: %s %s", status, m.Header.Get("Description"))
			}
			return nil
		}
		if m.Reply != "" && !inTurn(m.Reply, len(m.Data), index) {
			return fmt.Errorf("part %d is missing", index)
		}
		if _, err := w.Write(m.Data); err != nil {
			return err
		}
		if m.Reply == "" {
			continue
		}
		if err := m.Respond(nil); err != nil {
			return fmt.Errorf("acknowledge part %d: %w", index, err)
		}
	}
}

// inTurn says whether the part is the one of that index: its reply ends with its length and its index.
func inTurn(reply string, length, index int) bool {
	return strings.HasSuffix(reply, "."+strconv.Itoa(length)+"."+strconv.Itoa(index))
}

// checkSnapshot reads a whole copy: every message is there in order, none beyond the last, and the end is.
func checkSnapshot(r io.Reader, s Stream) error {
	in := archive.NewReader(s2.NewReader(r))
	first, err := in.Next()
	if err != nil {
		return fmt.Errorf("stream %s: the copy does not begin: %w", s.Name, err)
	}
	if first.Name != "state.json" || first.HeaderSize+first.PayloadSize > maxState {
		return fmt.Errorf("stream %s: the copy does not begin with the stream's state", s.Name)
	}
	var state server.StreamState
	if err := json.NewDecoder(in).Decode(&state); err != nil {
		return fmt.Errorf("stream %s: state: %w", s.Name, err)
	}
	if state.LastSeq != s.Last || state.Consumers != 0 {
		return fmt.Errorf("stream %s: the copy is of another state", s.Name)
	}
	for last := uint64(0); ; {
		h, err := in.Next()
		switch {
		case errors.Is(err, io.EOF):
			return fmt.Errorf("stream %s: the copy ends early", s.Name)
		case err != nil:
			return fmt.Errorf("stream %s: the copy is damaged: %w", s.Name, err)
		case h.Sequence == 0 && h.Name == "" && h.HeaderSize == 0 && h.PayloadSize == 0:
			return nil
		case h.HeaderSize > maxMessage || h.PayloadSize > maxMessage:
			return fmt.Errorf("stream %s: message %d: %w", s.Name, h.Sequence, errTooLarge)
		case h.Sequence <= last || h.Sequence > s.Last:
			return fmt.Errorf("stream %s: message %d follows message %d, and the last is %d", s.Name, h.Sequence, last, s.Last)
		}
		last = h.Sequence
	}
}
