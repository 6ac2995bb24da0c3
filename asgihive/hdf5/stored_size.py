"""How large an element is in a file, which is not how large it is in memory."""

import math

from h5py import h5t

from asgihive.hdf5.open_file import OpenFile


def stored_size(file: OpenFile, type_id: h5t.TypeID) -> int:
    """The bytes of an element in the file; of one in memory where it says nothing else."""
    size: int = type_id.get_size()
    if not type_id.detect_class(h5t.VLEN) and not type_id.detect_class(h5t.STRING):
        return size
    address_bytes, _ = file.id.get_create_plist().get_sizes()
    return size + _pointers_growth(type_id, address_bytes)


def _pointers_growth(type_id: h5t.TypeID, address_bytes: int) -> int:
    """By how much an element is larger in the file than in memory.

    What has a variable length is there a length and a place in a global heap, four bytes, an
    address and four bytes (HDF5 File Format Specification, section III.E); members of
    compounds move with it (H5T_set_loc).
    """
    match type_id:
        case h5t.TypeCompoundID():
            members = map(type_id.get_member_type, range(type_id.get_nmembers()))
            return sum(_pointers_growth(member, address_bytes) for member in members)
        case h5t.TypeArrayID():
            count = math.prod(type_id.get_array_dims())
            growth = _pointers_growth(type_id.get_super(), address_bytes)
            return int(count) * growth
        case h5t.TypeVlenID():
            return 8 + address_bytes - int(type_id.get_size())
        case h5t.TypeStringID() if type_id.is_variable_str():
            return 8 + address_bytes - int(type_id.get_size())
    return 0
