"""The public interface for node packs, in versions."""
