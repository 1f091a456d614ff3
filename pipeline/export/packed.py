"""The class that models exported by earlier versions name besides; such a model has to be exported again."""

from heads.exported import ExportedHead as PackedTransformer

__all__ = ["PackedTransformer"]
