package lending

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/source"
	"chandler/events"
)

const secret = "hunter2-hunter2"

func loan() Loan {
	return Loan{Identity: "network-access-account", Account: "corp-reader", User: `EXAMPLE\reader`, Version: 7, Method: events.ByPassword, Lease: "l-1", Secret: []byte(secret), Expires: time.Unix(1_800_000_000, 0).UTC()}
}

func TestASecretIsInNothingThatIsPrintedOrEncoded(t *testing.T) {
	l := loan()
	encoded, err := json.Marshal(map[string]any{"loan": l, "pointer": &l})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(l), fmt.Sprintf("%+v %#v %s %q %x", l, l, &l, l, l), fmt.Sprintf("%v", []Loan{l}), string(encoded)} {
		for _, form := range []string{secret, "aHVudGVyMi1odW50ZXIy", fmt.Sprintf("%x", secret), fmt.Sprint([]byte(secret))} {
			if strings.Contains(text, form) {
				t.Errorf("%s", text)
			}
		}
	}
	kept := l.Secret
	l.Clear()
	if l.Secret != nil || !bytes.Equal(kept, make([]byte, len(secret))) {
		t.Error("it is not overwritten")
	}
}

func TestAFrameIsReadAsItWasWritten(t *testing.T) {
	for _, a := range []answer{
		{loan: loan()},
		{loan: Loan{Account: "a", Secret: []byte{0, 1, 255}}},
		{loan: Loan{Identity: "i", Account: "a", User: "u", Version: 1}, refusal: &source.Error{Reason: events.NetworkAccessAccountMissing, Answer: "none covers it"}},
	} {
		body, err := readFrame(bytes.NewReader(a.encode()))
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseAnswer(body)
		if diff := cmp.Diff(fields7(a), fields7(got)); err != nil || diff != "" {
			t.Errorf("%v: %s", err, diff)
		}
	}
	body, err := readFrame(bytes.NewReader(request{"/run/x", "smb://f/a"}.encode()))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseRequest(body); err != nil || got != (request{"/run/x", "smb://f/a"}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// fields7 is an answer for comparison, which Format would hide.
func fields7(a answer) map[string]any {
	all := map[string]any{"who": []string{a.loan.Identity, a.loan.Account, a.loan.User, a.loan.Method}, "version": a.loan.Version, "secret": string(a.loan.Secret), "expires": a.loan.Expires}
	if a.refusal != nil {
		all["reason"], all["answer"] = a.refusal.Reason, a.refusal.Answer
	}
	return all
}

func TestAFrameThatIsNoneIsRefused(t *testing.T) {
	good := answer{loan: loan()}.encode()
	for name, data := range map[string][]byte{
		"empty":                         {},
		"of no bytes":                   {0, 0, 0, 0},
		"too large":                     {0xff, 0xff, 0xff, 0xff, kindLoan},
		"cut":                           good[:len(good)-1],
		"of another kind":               request{"d", "a"}.encode(),
		"with a field that is too long": {0, 0, 0, 6, kindLoan, 0xff, 0xff, 0xff, 0xff, 1},
		"with too few fields":           frame(kindLoan, nil, nil),
		"with too many fields":          frame(kindLoan, nil, nil, nil, number(1), nil, number(1), nil, nil, nil),
		"with a short number":           frame(kindLoan, nil, nil, nil, []byte{1}, nil, number(1), nil, nil),
	} {
		body, err := readFrame(bytes.NewReader(data))
		if err == nil {
			_, err = parseAnswer(body)
		}
		if err == nil {
			t.Errorf("a frame %s is read", name)
		}
	}
}

func TestARefusalWithoutAReasonThatIsKnownIsADenial(t *testing.T) {
	for _, reason := range []events.Reason{"", "nonsense"} {
		body, err := readFrame(bytes.NewReader(answer{refusal: &source.Error{Reason: reason}}.encode()))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseAnswer(body); err != nil || got.refusal.Reason != events.CredentialDenied {
			t.Errorf("%q: %v, %v", reason, got.refusal, err)
		}
	}
	if got := refusalOf(errors.New("x")); got.Reason != events.CredentialUnavailable || strings.Contains(got.Answer, "x") {
		t.Errorf("%v", got)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(answer{loan: loan()}.encode())
	f.Add(answer{refusal: &source.Error{Reason: events.CredentialDenied, Answer: "no"}}.encode())
	f.Add(request{"/run/x", "smb://f/a"}.encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		body, err := readFrame(bytes.NewReader(data))
		if err != nil {
			return
		}
		if len(body) > maxFrame {
			t.Fatalf("%d bytes", len(body))
		}
		if r, err := parseRequest(body); err == nil && !bytes.Equal(r.encode()[4:], body) {
			t.Fatalf("%q is %q", body, r.encode())
		}
		if a, err := parseAnswer(bytes.Clone(body)); err == nil && a.refusal == nil && !bytes.Equal(a.encode()[4:], body) {
			t.Fatalf("%q is %q", body, a.encode())
		}
	})
}
