package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// WriteJSON writes one message as one indented JSON document: protobuf's JSON with default values,
// without messages that are unset.
func WriteJSON(w io.Writer, m proto.Message) error {
	line, err := jsonLine(m)
	if err != nil {
		return err
	}
	var doc bytes.Buffer
	if err := json.Indent(&doc, line, "", "  "); err != nil {
		return fmt.Errorf("indenting JSON: %w", err)
	}
	doc.WriteByte('\n')
	_, err = w.Write(doc.Bytes())
	return err
}

// writeJSONLine writes one message as one line.
func writeJSONLine(w io.Writer, m proto.Message) error {
	line, err := jsonLine(m)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// jsonLine encodes a message on one line. protojson puts in spaces at random so that nobody relies
// on them; they are taken out, so that equal messages are equal bytes.
func jsonLine(m proto.Message) ([]byte, error) {
	raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(withLedger(m))
	if err != nil {
		return nil, fmt.Errorf("encoding JSON: %w", err)
	}
	var line bytes.Buffer
	if err := json.Compact(&line, raw); err != nil {
		return nil, fmt.Errorf("compacting JSON: %w", err)
	}
	return cleanJSON(line.Bytes()), nil
}

// withLedger makes sure that a measurement has its ledger, also when nobody was asked.
func withLedger(m proto.Message) proto.Message {
	one, ok := m.(*pb.Measurement)
	if !ok || one.GetLedger() != nil {
		return m
	}
	one = proto.CloneOf(one)
	one.Ledger = &pb.Ledger{}
	return one
}
