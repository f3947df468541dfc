package integration

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/calendar"
	"chandler/events/order"
	"chandler/services/content/publish"
)

// forge changes the payload of a signed order and keeps its signatures.
func forge(t *testing.T, envelope []byte, change func(payload map[string]any)) []byte {
	t.Helper()
	var outer, payload map[string]any
	must(t, json.Unmarshal(envelope, &outer))
	inner, err := base64.StdEncoding.DecodeString(outer["payload"].(string))
	must(t, err)
	must(t, json.Unmarshal(inner, &payload))
	change(payload)
	inner, err = json.Marshal(payload)
	must(t, err)
	outer["payload"] = base64.StdEncoding.EncodeToString(inner)
	forged, err := json.Marshal(outer)
	must(t, err)
	return forged
}

// refused asserts that a request failed with a code and these words.
func refused(t *testing.T, err error, code, words string) {
	t.Helper()
	told, ok := errors.AsType[*bus.RequestError](err)
	if !ok || told.Code != code || !strings.Contains(told.Message, words) {
		t.Errorf("answered %v, want %s: …%s…", err, code, words)
	}
}

func TestADeploymentThatCannotBeIsRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	f.deploy("there", p)
	hour := func(n int) time.Time {
		return time.Now().UTC().Add(time.Duration(n) * time.Hour).Truncate(time.Second)
	}
	forged := func(change func(map[string]any)) func(*testing.T, string) events.DeploymentRequest {
		return func(t *testing.T, name string) events.DeploymentRequest {
			return events.DeploymentRequest{Envelope: forge(t, f.sign(name, p).Envelope, change)}
		}
	}
	signed := func(change func(*order.Order)) func(*testing.T, string) events.DeploymentRequest {
		return func(_ *testing.T, name string) events.DeploymentRequest { return f.sign(name, p, change) }
	}
	for name, c := range map[string]struct {
		request     func(t *testing.T, name string) events.DeploymentRequest
		code, words string
	}{
		"of an unknown package":            {signed(func(o *order.Order) { o.Manifest = events.DigestOf([]byte("nothing")) }), bus.CodeNotFound, "is not published"},
		"of another package's manifest":    {signed(func(o *order.Order) { o.Package = "other" }), bus.CodeBadRequest, "its manifest is that of probe 1.0"},
		"of an unknown program":            {signed(func(o *order.Order) { o.Program = "polish" }), bus.CodeNotFound, "has no program polish; it has install"},
		"to an unknown collection":         {signed(func(o *order.Order) { o.Collection = "nowhere" }), bus.CodeNotFound, `no collection "nowhere"`},
		"to a collection that was changed": {signed(func(o *order.Order) { o.Expression = `agent.os == "plan9"` }), bus.CodeConflict, "is not the one that was signed"},
		"whose order is over":              {signed(func(o *order.Order) { o.Issued, o.NotAfter = hour(-48), hour(-1) }), bus.CodeBadRequest, "was valid until"},
		"that has expired": {signed(func(o *order.Order) {
			at := hour(-1)
			o.Issued, o.Expires = hour(-2), new(calendar.At(at))
		}), bus.CodeBadRequest, "expired at"},
		"that was signed tomorrow":              {signed(func(o *order.Order) { o.Issued = hour(20) }), bus.CodeBadRequest, "still to come"},
		"that expires before it was signed":     {forged(func(o map[string]any) { o["expires"] = hour(-100) }), bus.CodeBadRequest, "expires lies before"},
		"that expires before it is available":   {forged(func(o map[string]any) { o["available"], o["expires"] = hour(3), hour(2) }), bus.CodeBadRequest, "expires lies before available"},
		"that expires before its deadline":      {forged(func(o map[string]any) { o["assignments"], o["expires"] = []any{map[string]any{"at": hour(3)}}, hour(2) }), bus.CodeBadRequest, "expires lies before the deadline"},
		"with an assignment that names no time": {forged(func(o map[string]any) { o["assignments"] = []any{map[string]any{}} }), bus.CodeBadRequest, "exactly one of them"},
		"whose target does not compile":         {forged(func(o map[string]any) { o["expression"] = "agent.os ==" }), bus.CodeBadRequest, "1:"},
		"that says what this version does not":  {forged(func(o map[string]any) { o["colour"] = "red" }), bus.CodeBadRequest, "does not know"},
		"of a newer format":                     {forged(func(o map[string]any) { o["format"] = 2 }), bus.CodeBadRequest, "format 2"},
		"under a name that is no name":          {forged(func(o map[string]any) { o["deployment"] = "a.b" }), bus.CodeBadRequest, `"a.b"`},
		"that is no envelope": {func(*testing.T, string) events.DeploymentRequest {
			return events.DeploymentRequest{Envelope: []byte("hello")}
		}, bus.CodeBadRequest, "not a DSSE envelope"},
		"with an order that is too large": {func(*testing.T, string) events.DeploymentRequest {
			return events.DeploymentRequest{Envelope: bytes.Repeat([]byte{' '}, order.MaxSize+1)}
		}, bus.CodeBadRequest, "larger than"},
		"including what is no agent": {func(_ *testing.T, name string) events.DeploymentRequest {
			r := f.sign(name, p)
			r.Include = []string{"a.b"}
			return r
		}, bus.CodeBadRequest, `"a.b"`},
		"under a name that is taken": {func(*testing.T, string) events.DeploymentRequest {
			return f.sign("there", p, func(o *order.Order) { o.Rerun = order.RerunNever })
		}, bus.CodeConflict, "sign revision 2"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ask(f, events.DeploymentCreate, c.request(t, "refused"))
			refused(t, err, c.code, c.words)
		})
	}
	if all := mustAsk(f, events.DeploymentList, events.Nothing{}).Deployments; len(all) != 1 {
		t.Errorf("%d deployments were accepted", len(all)-1)
	}
	f.want("there", m, events.Succeeded)
	f.worksAsBefore(p, m)
}

func TestAnOrderThatAgentsWouldRefuseIsRefusedEarly(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	good := f.sign("d", p)
	strange, _, err := order.Open(good.Envelope)
	must(t, err)
	stranger, err := order.Sign(strange, newKey(t, 9))
	must(t, err)
	for name, c := range map[string]struct {
		envelope []byte
		reason   events.Reason
	}{
		"signed by a key that nobody trusts": {stranger, events.OrderUnknownKey},
		"altered after signing":              {forge(t, good.Envelope, func(o map[string]any) { o["rerun"] = "never" }), events.OrderAltered},
		"without a signature":                {unsigned(t, good.Envelope), events.OrderUnsigned},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ask(f, events.DeploymentCreate, events.DeploymentRequest{Envelope: c.envelope})
			refused(t, err, bus.CodeBadRequest, string(c.reason))
		})
	}
	f.worksAsBefore(p, m)
}

// ends waits for the end of a job and compares what it says and what execution counted.
func (f *fleet) ends(t *testing.T, deployment string, m *machine, state events.State, reason events.Reason, says string) {
	t.Helper()
	if row := f.want(deployment, m, state); row.Reason != reason {
		t.Errorf("reason %s, want %s", row.Reason, reason)
	}
	statuses := f.statuses(deployment, m)
	if last := statuses[len(statuses)-1]; last.Reason != reason || !strings.Contains(last.Explanation, says) {
		t.Errorf("the agent says %s: %s", last.Reason, last.Explanation)
	}
	f.check(deployment, m)
	eventually(t, "the end is counted", func() bool {
		return f.counted("execution", "chandler_execution_ends_total", fmt.Sprintf(`state=%q`, string(state))) >= 1 &&
			(state == events.WillNotRerun || f.counted("execution", "chandler_execution_failures_total", fmt.Sprintf(`reason=%q`, string(reason))) >= 1)
	})
}

func unsigned(t *testing.T, envelope []byte) []byte {
	t.Helper()
	var e map[string]any
	must(t, json.Unmarshal(envelope, &e))
	e["signatures"] = []any{}
	bare, err := json.Marshal(e)
	must(t, err)
	return bare
}

func TestAProgramThatCannotRunHereSaysWhy(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	f.deploy("first", p)
	f.want("first", m, events.Succeeded)
	for deployment, c := range map[string]struct {
		program string
		state   events.State
		reason  events.Reason
		says    string
		change  func(*order.Order)
	}{
		"elsewhere":     {`{command: ["true"], run: administrative, applies-if: 'agent.os == "plan9"'}`, events.Rejected, events.RequirementsNotMet, "linux", nil},
		"unclear":       {`{command: ["true"], run: administrative, applies-if: 'agent.tags[7] == "x"'}`, events.Rejected, events.RequirementsUnknown, "index", nil},
		"as-user":       {`{command: ["true"], run: user}`, events.Rejected, events.ContextUnsupported, "programs as user", func(o *order.Order) { o.Run = events.RunUser }},
		"no-command":    {`{command: [no-such-program, --now], run: administrative}`, events.Failed, events.CommandNotFound, "no-such-program", nil},
		"no-executable": {`{command: [./payload], run: administrative}`, events.Failed, events.CommandNotExecutable, "payload", nil},
		"nowhere":       {`{command: ["true"], run: administrative, working-directory: no/such/place}`, events.Failed, events.BadWorkingDirectory, "no/such/place", nil},
	} {
		t.Run(deployment, func(t *testing.T) {
			bad := f.publishProgram(t, deployment, c.program)
			if c.change == nil {
				c.change = func(*order.Order) {}
			}
			f.deploy(deployment, bad, c.change)
			f.ends(t, deployment, m, c.state, c.reason, c.says)
		})
	}
	t.Run("never again", func(t *testing.T) {
		f.deploy("never-again", p, func(o *order.Order) { o.Rerun = order.RerunNever })
		f.ends(t, "never-again", m, events.WillNotRerun, events.AlreadyRan, "ended here as succeeded before")
	})
	if ran := m.ran(); len(ran) != 1 {
		t.Errorf("ran %v", ran)
	}
	f.worksAsBefore(p, m)
}

// publishProgram publishes a package of one program, given as YAML, with a file that is no program.
func (f *fleet) publishProgram(t *testing.T, name, program string) events.PackageInfo {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "package")
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "package.yaml"), fmt.Appendf(nil, "api: chandler/v1\npackage: %s\nversion: \"1.0\"\nprograms: {install: %s}\n", name, program), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "payload"), payload, 0o600))
	plan, err := publish.Read(t.Context(), dir, publish.Options{Seal: f.seal})
	must(t, err)
	return f.upload(plan)
}

func TestNamesThatAreNoNamesAreRefused(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	for _, id := range []string{"agent.one", "*", ">", "agent one", "", "AGENTONE", "short"} {
		t.Run(fmt.Sprintf("agent %q", id), func(t *testing.T) {
			_, err := ask(f, events.CollectionSet, events.Collection{Name: "odd", Include: []string{id}})
			refused(t, err, bus.CodeBadRequest, fmt.Sprintf("agent id %q", id))
			_, err = ask(f, events.CollectionSet, events.Collection{Name: "odd", Expression: "true", Exclude: []string{id}})
			refused(t, err, bus.CodeBadRequest, fmt.Sprintf("agent id %q", id))
			_, err = bus.Request(t.Context(), f.owner, id, events.ExecutionSync, events.SyncRequest{})
			refused(t, err, bus.CodeBadRequest, fmt.Sprintf("agent id %q", id))
		})
	}
	for _, caller := range []string{"*", ">", "AGENTONE", "short"} {
		t.Run(fmt.Sprintf("caller %q on the wire", caller), func(t *testing.T) {
			answer, err := f.owner.Conn().Request(events.ExecutionSync.Subject("", caller), []byte("{}"), 10*time.Second)
			must(t, err)
			if code := answer.Header.Get(micro.ErrorCodeHeader); code != bus.CodeDenied {
				t.Errorf("answered %q: %s", code, answer.Data)
			}
		})
	}
	t.Run("two callers on the wire", func(t *testing.T) {
		if _, err := f.owner.Conn().Request(events.ExecutionSync.Subject("", "one.two"), nil, 10*time.Second); !errors.Is(err, nats.ErrNoResponders) {
			t.Errorf("answered with %v", err)
		}
	})
	for expression, position := range map[string]string{`agent.os == "linux" &&`: "1:2", `agent.colour == "red"`: "1:6", "true &&\n  agent.os = 7": "2:12", `agent.hostname`: "gives string"} {
		t.Run(fmt.Sprintf("expression %q", expression), func(t *testing.T) {
			_, err := ask(f, events.CollectionSet, events.Collection{Name: "odd", Expression: expression})
			refused(t, err, bus.CodeBadRequest, position)
			_, err = ask(f, events.CollectionPreview, events.Collection{Name: "odd", Expression: expression})
			refused(t, err, bus.CodeBadRequest, position)
		})
	}
	_, err := ask(f, events.CollectionShow, events.Named{Name: "odd"})
	refused(t, err, bus.CodeNotFound, "odd")
	f.worksAsBefore(p, m)
}

func TestAnUploadThatDoesNotMatchItsHashIsRefused(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	right := []byte("the right bytes")
	ref := events.BlobRef{SHA256: events.DigestOf(right), Size: int64(len(right))}
	missing := mustAsk(f, events.ContentUpload, events.UploadRequest{Blobs: []events.BlobRef{ref}}).Missing
	if len(missing) != 1 {
		t.Fatalf("%d blobs are missing", len(missing))
	}
	put := func(body []byte) int {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, missing[0].URL, bytes.NewReader(body))
		must(t, err)
		answer, err := http.DefaultClient.Do(request)
		must(t, err)
		must(t, answer.Body.Close())
		return answer.StatusCode
	}
	for name, body := range map[string][]byte{"other bytes": []byte("the wrong bytes"), "fewer": right[:4], "more": append(bytes.Clone(right), '!')} {
		if status := put(body); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: answered %d", name, status)
		}
		if again := mustAsk(f, events.ContentUpload, events.UploadRequest{Blobs: []events.BlobRef{ref}}).Missing; len(again) != 1 {
			t.Errorf("%s: the blob is taken for stored", name)
		}
	}
	if n := f.counted("content", "chandler_content_bytes_total", `result="mismatch"`); n != float64(len(right)) {
		t.Errorf("counted %v bytes of uploads that do not match", n)
	}
	_, err := ask(f, events.ContentCommit, events.CommitRequest{Manifest: ref.SHA256})
	refused(t, err, bus.CodeBadRequest, "is not stored: upload it first")
	if status := put(right); status != http.StatusCreated {
		t.Errorf("the right bytes: answered %d", status)
	}
	m := f.machine("ws1")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	f.worksAsBefore(p, m)
}
