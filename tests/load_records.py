"""Run as ``python -m tests.load_records PATH FORM``: load all that the records of a data set hold."""

import sys

from imvideoedit.common.errors import UserError
from imvideoedit.data.records import open_records

if __name__ == "__main__":
    try:
        for record in open_records(sys.argv[1], sys.argv[2]):
            record.load()
            for name in record.media:
                record.read(name)
            assert isinstance(record.texts, dict)
    except UserError as error:
        sys.exit(f"error: {error}")
