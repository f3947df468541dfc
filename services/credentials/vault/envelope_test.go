package vault

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestKeysetFilesThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ data, says string }{
		"whole":                  {`{"format":1,"kept_by":"file:/k","since":"2026-01-02T03:04:05Z","wrapped":"AAAA"}`, ""},
		"a field nobody knows":   {`{"format":1,"kept_by":"file:/k","since":"2026-01-02T03:04:05Z","wrapped":"AAAA","then":1}`, "of a later version"},
		"something after it":     {`{"format":1,"kept_by":"file:/k","since":"2026-01-02T03:04:05Z","wrapped":"AAAA"}{}`, "damaged"},
		"another format":         {`{"format":0,"kept_by":"file:/k","wrapped":"AAAA"}`, "format is 0"},
		"no name":                {`{"format":1,"wrapped":"AAAA"}`, "what encrypts it"},
		"a name without a place": {`{"format":1,"kept_by":"file:","wrapped":"AAAA"}`, "what encrypts it"},
		"a name of two lines":    {`{"format":1,"kept_by":"file:/a\nb","wrapped":"AAAA"}`, "what encrypts it"},
		"nothing wrapped":        {`{"format":1,"kept_by":"file:/k"}`, "0 bytes"},
		"far too much":           {`{"format":1,"kept_by":"file:/k","wrapped":"` + base64.StdEncoding.EncodeToString(make([]byte, maxWrapped+1)) + `"}`, "not 1 to"},
		"a huge file":            {strings.Repeat(" ", maxEnvelope+1), "larger than"},
		"null":                   {`null`, "format is 0"},
		"a list":                 {`[]`, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseEnvelope([]byte(c.data))
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %q", err, c.says)
			}
		})
	}
}

func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(`{"format":1,"kept_by":"file:/k","since":"2026-01-02T03:04:05Z","wrapped":"AAAA"}`))
	f.Add([]byte(`{"format":1,"kept_by":"transit:https://h/m/k","wrapped":""}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := parseEnvelope(data)
		if err != nil {
			if len(e.Wrapped) > 0 || strings.Contains(err.Error(), "\n") {
				t.Errorf("refused with %+v, %v", e, err)
			}
			return
		}
		if e.Format != format || kindOf(e.KeptBy) == "" || len(e.Wrapped) == 0 || len(e.Wrapped) > maxWrapped {
			t.Errorf("accepted %+v", e)
		}
		if _, err := json.Marshal(e.Since); err != nil {
			return // a year that cannot be written
		}
		again, err := e.bytes()
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseEnvelope(again)
		if err != nil || !bytes.Equal(back.Wrapped, e.Wrapped) {
			t.Errorf("written and read again: %v %s", err, cmp.Diff(e, back))
		}
	})
}
