"""Messages as dicts, and dicts as the parts of a job's spec."""

import datetime


def _repeated(field):
    # Newer versions of protobuf have is_repeated and no label, older ones the reverse.
    return field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


def to_dict(message):
    """Fields that are set, by their names in the API. Enums are names, times datetime, durations seconds."""
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Timestamp":
        return datetime.datetime.fromtimestamp(message.seconds + message.nanos / 1e9, datetime.timezone.utc)
    if name == "google.protobuf.Duration":
        return message.seconds + message.nanos / 1e9
    out = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        repeated = _repeated(field)
        if repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
            out[field.name] = dict(value)
        elif repeated:
            out[field.name] = [_value(field, item) for item in value]
        elif not field.has_presence or message.HasField(field.name):
            out[field.name] = _value(field, value)
    return out


def _value(field, value):
    if field.message_type is not None:
        return to_dict(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return value


def fill(message, values, where):
    """Sets fields of a message from a dict. ValueError for a key or a value that it can't have, with those it can."""
    fields = message.DESCRIPTOR.fields_by_name
    for key, value in values.items():
        if key not in fields:
            raise ValueError(f"{where}.{key}: no such key; there are {', '.join(sorted(fields))}")
        field = fields[key]
        path = f"{where}.{key}"
        try:
            if field.enum_type is not None:
                setattr(message, key, _enum(field, value, path))
            elif field.message_type is not None:
                if not isinstance(value, dict):
                    raise ValueError(f"{path}: a dict is needed, not {value!r}")
                fill(getattr(message, key), value, path)
            elif _repeated(field):
                getattr(message, key).extend([value] if isinstance(value, str) else value)
            else:
                setattr(message, key, value)
        except TypeError:
            raise ValueError(f"{path}: {value!r} is of the wrong kind") from None


def _enum(field, value, path):
    names = [v.name for v in field.enum_type.values if v.number != 0]
    if str(value).upper() not in names:
        raise ValueError(f"{path}: {value!r} is none of {', '.join(n.lower() for n in names)}")
    return field.enum_type.values_by_name[str(value).upper()].number


def fill_resources(message, values):
    """As a job file has them: devices is a number or {"min", "max"}, shards a number or "auto"."""
    for key, value in values.items():
        if key == "devices" and isinstance(value, dict):
            fill(message.device_range, value, "resources.devices")
        elif key == "devices":
            fill(message, {"device_count": value}, "resources")
        elif key == "shards":
            message.shards = 0 if value == "auto" else value
        else:
            raise ValueError(f"resources.{key}: no such key; there are devices and shards")
