package events

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
)

// The events of which there are as many as jobs are written without reflection. What is written is what
// encoding/json writes with SetEscapeHTML(false), byte for byte; ok is false where that is not certain, and then
// encoding/json has the word.

// AppendOffer appends the JSON of an offer.
func AppendOffer(dst []byte, o *JobOffer) (out []byte, ok bool) {
	w := jsonWriter{out: append(dst, '{')}
	w.number("format", int64(o.Format))
	w.text("agent", o.Agent)
	w.text("job", o.Job)
	w.text("deployment", o.Deployment)
	w.unsigned("revision", o.Revision)
	w.text("order", o.Order)
	w.optionalNumber("occurrence", o.Occurrence)
	w.optional("user", o.User)
	w.number("attempt", int64(o.Attempt))
	return append(w.out, '}'), !w.failed
}

// AppendStatus appends the JSON of a status.
func AppendStatus(dst []byte, s *JobStatus) (out []byte, ok bool) {
	w := jsonWriter{out: append(dst, '{')}
	w.status(s)
	return append(w.out, '}'), !w.failed
}

// AppendEnd appends the JSON of the end of a job.
func AppendEnd(dst []byte, e *JobEnd) (out []byte, ok bool) {
	w := jsonWriter{out: append(dst, '{')}
	w.status(&e.JobStatus)
	if e.Silent {
		w.key("silent")
		w.out = append(w.out, "true"...)
	}
	return append(w.out, '}'), !w.failed
}

// jsonWriter appends the fields of one object.
type jsonWriter struct {
	out    []byte
	failed bool
}

func (w *jsonWriter) status(s *JobStatus) {
	w.text("job", s.Job)
	w.text("deployment", s.Deployment)
	w.unsigned("revision", s.Revision)
	w.text("order", s.Order)
	w.text("agent", s.Agent)
	w.optional("host", s.Host)
	w.optional("site", s.Site)
	w.optional("package", s.Package)
	w.optional("version", s.Version)
	w.optional("program", s.Program)
	w.optional("step", s.Step)
	w.optionalNumber("occurrence", s.Occurrence)
	w.optional("user", s.User)
	w.number("attempt", int64(s.Attempt))
	w.unsigned("transition", uint64(s.Transition))
	w.text("state", string(s.State))
	w.optional("reason", string(s.Reason))
	w.optional("waiting_for", string(s.WaitingFor))
	w.optional("explanation", s.Explanation)
	w.optional("identity", s.Identity)
	w.optional("resource", s.Resource)
	w.optional("answer", s.Answer)
	w.optional("reader", s.Reader)
	w.optional("executor", s.Executor)
	w.optional("elevated_to", s.ElevatedTo)
	if s.ExitCode != nil {
		w.number("exit_code", int64(*s.ExitCode))
	}
	w.optionalNumber("bytes", s.Bytes)
	w.seconds(s.Seconds)
	if s.RetryAt != nil {
		w.time("retry_at", *s.RetryAt)
	}
	w.accesses(s.Accesses)
	w.time("at", s.At)
}

func (w *jsonWriter) accesses(all []Access) {
	if len(all) == 0 {
		return
	}
	w.key("accesses")
	separator := byte('[')
	for i := range all {
		a := &all[i]
		w.out = append(w.out, separator, '{')
		separator = ','
		w.text("resource", a.Resource)
		w.text("identity", a.Identity)
		w.optional("account", a.Account)
		w.optional("user", a.User)
		w.optionalNumber("version", int64(a.Version))
		w.text("when", a.When)
		w.optional("reason", string(a.Reason))
		w.optional("answer", a.Answer)
		w.time("at", a.At)
		w.out = append(w.out, '}')
	}
	w.out = append(w.out, ']')
}

func (w *jsonWriter) key(name string) {
	if w.out[len(w.out)-1] != '{' {
		w.out = append(w.out, ',')
	}
	w.out = append(append(append(w.out, '"'), name...), '"', ':')
}

func (w *jsonWriter) optional(name, value string) {
	if value != "" {
		w.text(name, value)
	}
}

func (w *jsonWriter) text(name, value string) {
	w.key(name)
	for i := range len(value) {
		if c := value[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			w.escaped(value)
			return
		}
	}
	w.out = append(append(append(w.out, '"'), value...), '"')
}

// escaped leaves it to encoding/json what is escaped, and how.
func (w *jsonWriter) escaped(value string) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		w.failed = true
		return
	}
	w.out = append(w.out, strings.TrimSuffix(b.String(), "\n")...)
}

func (w *jsonWriter) optionalNumber(name string, n int64) {
	if n != 0 {
		w.number(name, n)
	}
}

func (w *jsonWriter) number(name string, n int64) {
	w.key(name)
	w.out = strconv.AppendInt(w.out, n, 10)
}

func (w *jsonWriter) unsigned(name string, n uint64) {
	w.key(name)
	w.out = strconv.AppendUint(w.out, n, 10)
}

func (w *jsonWriter) seconds(n float64) {
	if n == 0 {
		return
	}
	if size := math.Abs(n); !(size >= 1e-6 && size < 1e21) { // others, and what is no number, are written with an exponent or not at all
		w.failed = true
		return
	}
	w.key("seconds")
	w.out = strconv.AppendFloat(w.out, n, 'f', -1, 64)
}

func (w *jsonWriter) time(name string, t time.Time) {
	w.key(name)
	out, err := t.AppendText(append(w.out, '"'))
	if err != nil {
		w.failed = true
		return
	}
	w.out = append(out, '"')
}
