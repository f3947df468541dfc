package bus

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestWhatTheStoreSaysIsRead(t *testing.T) {
	api := &jetstream.APIError{ErrorCode: jetstream.JSErrCodeStreamWrongLastSequence}
	tests := []struct {
		name, data string
		duplicate  bool
		want       error
	}{
		{"the usual answer", `{"stream":"STATUS","seq":12}`, false, nil},
		{"of a domain", `{"stream":"STATUS","domain":"hub","seq":12}`, false, nil},
		{"a duplicate", `{"stream":"STATUS","seq":12,"duplicate":true}`, true, nil},
		{"a duplicate, with spaces", `{"stream": "STATUS", "seq": 12, "duplicate": true}`, true, nil},
		{"an error", `{"error":{"code":400,"err_code":10071,"description":"wrong last sequence"},"stream":"STATUS","seq":0}`, false, api},
		{"an error behind the sequence", `{"stream":"STATUS","seq":12,"error":{"code":400,"err_code":10071}}`, false, api},
		{"no stream", `{"stream":"","seq":12}`, false, jetstream.ErrInvalidJSAck},
		{"no sequence", `{"stream":"STATUS","seq":}`, false, jetstream.ErrInvalidJSAck},
		{"no JSON", `+OK`, false, jetstream.ErrInvalidJSAck},
		{"nothing", ``, false, jetstream.ErrInvalidJSAck},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			duplicate, err := readAck(&nats.Msg{Data: []byte(tt.data)})
			if duplicate != tt.duplicate || !errors.Is(err, tt.want) {
				t.Errorf("duplicate %v, error %v, want %v, %v", duplicate, err, tt.duplicate, tt.want)
			}
		})
	}
	if _, err := readAck(&nats.Msg{Header: nats.Header{"Status": {"503"}}}); !errors.Is(err, jetstream.ErrNoStreamResponse) {
		t.Errorf("where nobody listens: %v", err)
	}
}

func TestAnswersAreToldApartByTheirNumbers(t *testing.T) {
	a := answers{prefix: "_INBOX.x."}
	for _, n := range []uint64{0, 1, 1 << 63} {
		if got, ok := a.number(a.subject(n)); !ok || got != n {
			t.Errorf("%d is read as %d (%v)", n, got, ok)
		}
	}
	for _, subject := range []string{"", "_INBOX.x.", "_INBOX.x.-1", "_INBOX.x.a", "_INBOX.x.1.2"} {
		if n, ok := a.number(subject); ok {
			t.Errorf("%q is read as %d", subject, n)
		}
	}
}
