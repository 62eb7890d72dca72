package store

import (
	"context"
	"fmt"

	"go.etcd.io/bbolt"
)

// Verify reads all of the checkpoint, and tells its position and its hash, made anew from what is there. An error says
// what is damaged, or that the hash is not the one that was written with it.
func (s *Store) Verify(ctx context.Context) (position uint64, hash []byte, err error) {
	var at checkpointed
	var total sum
	err = s.view(func(tx *bbolt.Tx) (err error) {
		if at, err = loadCheckpointed(tx); err != nil {
			return err
		}
		for _, part := range []func(context.Context, *bbolt.Tx, *sum) error{sumMeasurements, sumTrust, sumAudit} {
			if err := part(ctx, tx, &total); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && total != at.hash {
		err = fmt.Errorf("%w: it hashes to %x and was written as %x", ErrDamaged, total.bytes(), at.hash.bytes())
	}
	return at.position, total.bytes(), err
}

func sumMeasurements(ctx context.Context, tx *bbolt.Tx, total *sum) error {
	n := 0
	err := each(tx, bucketMeasurements, func(id, _ []byte) error {
		m, err := loadMeasurement(tx, string(id))
		if err != nil {
			return err
		}
		if m.sum != m.whole() {
			return fmt.Errorf("%w: the measurement %s", ErrDamaged, id)
		}
		total.add(m.sum)
		n++
		return ctx.Err()
	})
	if opened := tx.Bucket(bucketOpened).Stats().KeyN; err == nil && opened != n {
		err = fmt.Errorf("%w: %d measurements of %d", ErrDamaged, n, opened)
	}
	return err
}

func sumTrust(_ context.Context, tx *bbolt.Tx, total *sum) error {
	s := Store{registry: newRegistry(), deliveries: newDeliveries()}
	err := s.restoreTrust(tx)
	total.add(s.registry.sum)
	total.add(s.deliveries.sum)
	return err
}

func sumAudit(ctx context.Context, tx *bbolt.Tx, total *sum) error {
	c := tx.Bucket(bucketAudit).Cursor()
	for k, v := c.First(); k != nil && ctx.Err() == nil; k, v = c.Next() {
		e, err := decodeAudit(k, v)
		if err != nil {
			return err
		}
		total.add(e.item())
	}
	return ctx.Err()
}
