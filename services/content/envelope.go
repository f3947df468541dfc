package content

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"chandler/events"
	"chandler/events/manifest"
)

// sealed is the envelope of a manifest in the one form in which chandler writes it. Signatures are kept in the
// records, so that a manifest that was lost can be stored anew from the package's files alone: the envelope
// is then, byte for byte, the one that signed orders name.
type sealed struct {
	PayloadType string          `json:"payloadType"`
	Payload     []byte          `json:"payload"`
	Signatures  json.RawMessage `json:"signatures"`
}

// envelopeStart is how every envelope of a manifest begins.
func envelopeStart() string { return fmt.Sprintf("{\"payloadType\":%q,", manifest.PayloadType) }

// openEnvelope reads the manifest and its signatures, which are not verified.
func openEnvelope(envelope []byte) (events.Manifest, json.RawMessage, error) {
	m, err := manifest.Open(envelope)
	if err != nil {
		return events.Manifest{}, nil, err
	}
	var e sealed
	if err := json.Unmarshal(envelope, &e); err != nil {
		return events.Manifest{}, nil, fmt.Errorf("read envelope of manifest: %w", err)
	}
	again, err := seal(m, e.Signatures)
	if err != nil {
		return events.Manifest{}, nil, err
	}
	if !bytes.Equal(again, envelope) {
		return events.Manifest{}, nil, errors.New("the envelope of the manifest is not in the one form that chandler writes")
	}
	return m, e.Signatures, nil
}

// seal puts a manifest and its signatures together.
func seal(m events.Manifest, signatures json.RawMessage) ([]byte, error) {
	payload, err := manifest.Encode(m)
	if err != nil {
		return nil, err
	}
	return json.Marshal(sealed{PayloadType: manifest.PayloadType, Payload: payload, Signatures: signatures})
}
